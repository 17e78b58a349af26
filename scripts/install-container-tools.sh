#!/usr/bin/env bash
# What the tests of containers, Kubernetes manifests and the Helm chart need besides the packages of the other tests: podman,
# podman-compose, a base image made of Debian's packages, the Node that goes into the images, and Helm, built from source.
# Usage: sudo scripts/install-container-tools.sh [FOLDER]   (default: .ci/container-tools)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-.ci/container-tools}")
helm=v3.22.0
compose=1.6.0
mkdir -p "$folder"

apt-get update -qq
env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends binutils crun podman python3-pip

[ "$folder/base.tar" -nt deploy/container/debian-base.sh ] || { deploy/container/debian-base.sh "$folder/base.part" && mv "$folder/base.part" "$folder/base.tar"; }
if [ ! -d "$folder/compose/podman_compose-$compose.dist-info" ]; then
  rm -rf "$folder/compose"
  pip3 install --quiet --target "$folder/compose" "podman-compose==$compose"
fi
[ -d .ci/second-node/node_modules ] || npm ci --prefix .ci/second-node --no-audit --no-fund

if command -v go >/dev/null; then
  built=$(go version -m "$folder/helm" 2>/dev/null | awk '$1 == "mod" { print $3 }') || built=
  [ "$built" = "$helm" ] || CGO_ENABLED=0 GOBIN="$folder" GOFLAGS=-buildvcs=false nice go install "helm.sh/helm/v3/cmd/helm@$helm"
else
  echo 'no Go (https://go.dev/dl): the tests of the Helm chart will be skipped' >&2
fi
echo "ready: $folder"
