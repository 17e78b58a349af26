"""Makes the captures beside it, as root: superpackets of this kernel, and the segments that it makes of each itself.

The kernel's TCP and UDP send through a TUN with all offloads. Each superpacket that comes out goes into another network
namespace, which forwards it to a TUN without offloads: what comes out there was cut by the kernel. It is given a TTL
of one more before, since forwarding takes one.

A file is a list of frames, each behind its length (u32, big-endian): the superpacket with its vnet header, then the
segments without.
"""
import ctypes, fcntl, os, select, socket, struct, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)
here = os.path.dirname(os.path.abspath(__file__))


def run(text):
    subprocess.run(text.split(), check=True)


def new_namespace():
    if libc.unshare(0x40000000) != 0:
        sys.exit("unshare: " + os.strerror(ctypes.get_errno()))
    run("ip link set lo up")
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def tun(name, offloads):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1 | 0x1000 | 0x4000))
    fcntl.ioctl(fd, 0x400454D8, struct.pack("i", 10))
    fcntl.ioctl(fd, 0x400454D0, offloads)
    run(f"ip link set {name} mtu 1420 up")
    return fd


def frames(fd, seconds):
    found = []
    while select.select([fd], [], [], seconds)[0]:
        frame = os.read(fd, 70000)
        packet = frame[10:]
        if packet[9 if packet[0] >> 4 == 4 else 6] in (6, 17):
            found.append(frame)
    return found


def checksum(octets, start=0):
    octets += b"\0" * (len(octets) % 2)
    total = start + sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return 0xFFFF - total


class Peer:
    """A TCP that acknowledges everything."""

    def __init__(self, fd):
        self.fd, self.next, self.own = fd, 0, 1000

    def answer(self, frame, flags=0):
        packet = frame[10:]
        v6 = packet[0] >> 4 == 6
        tcp = packet[40 if v6 else 20 :]
        source, destination, sequence = struct.unpack(">HHI", tcp[:8])
        syn = tcp[13] & 2
        data = len(tcp) - (tcp[12] >> 4) * 4
        self.next = (sequence + data + (1 if syn or tcp[13] & 1 else 0)) & 0xFFFFFFFF
        stamp = b""
        at = 20
        while at < (tcp[12] >> 4) * 4:
            if tcp[at] == 8:
                stamp = b"\1\1\x08\x0a" + struct.pack(">I", 7) + tcp[at + 2 : at + 6]
            at += 1 if tcp[at] == 1 else max(tcp[at + 1], 2)
        options = (b"\2\4\5\x50" + stamp + b"\1\3\3\7" if syn else stamp)
        if syn:
            flags |= 0x02 | (0x40 if tcp[13] & 0xC0 == 0xC0 else 0)
        head = struct.pack(
            ">HHIIBBHHH", destination, source, self.own, self.next, (20 + len(options)) // 4 << 4, 0x10 | flags, 60000, 0, 0
        )
        self.own += 1 if syn else 0
        l4 = head + options
        addresses = packet[24:40] + packet[8:24] if v6 else packet[16:20] + packet[12:16]
        pseudo = 0xFFFF - checksum(addresses, 6 + len(l4))
        l4 = l4[:16] + struct.pack(">H", checksum(l4, pseudo)) + l4[18:]
        if v6:
            ip = struct.pack(">IHBB", 0x60000000, len(l4), 6, 64) + addresses
        else:
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0x4000, 64, 6, 0) + addresses
            ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
        os.write(self.fd, bytes(10) + ip + l4)


def superpackets(out):
    for family, address in ((socket.AF_INET, "10.9.0.2"), (socket.AF_INET6, "fd09::2")):
        name = "4" if family == socket.AF_INET else "6"
        for kind, nodelay_sizes in (("", (3000, 12345, 2737)), ("-ecn", (4001, 9000))):
            open("/proc/sys/net/ipv4/tcp_ecn", "w").write("1" if kind else "0")
            client, peer = socket.socket(family, socket.SOCK_STREAM), Peer(out)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # BBR keeps superpackets small.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
            client.setblocking(False)
            client.connect_ex((address, 9))
            for frame in frames(out, 0.2):
                peer.answer(frame)
            for at, size in enumerate(nodelay_sizes):
                frames(out, 0.1)
                client.send(bytes((i * 7 + (i >> 8) + size) & 0xFF for i in range(size)))
                for frame in frames(out, 0.2):
                    if frame[1]:
                        yield f"tcp{name}{kind}-{size}", frame
                    # Says that there was congestion, so that the next data say CWR.
                    peer.answer(frame, 0x40 if kind and at == 0 else 0)
            client.close()
            for frame in frames(out, 0.1):
                if frame[1]:
                    yield f"tcp{name}{kind}-end", frame
        for segment, size in ((700, 2100), (999, 5001), (1, 60), (1372 if name == "6" else 1392, 9000)):
            client = socket.socket(family, socket.SOCK_DGRAM)
            client.setsockopt(17, 103, segment)
            client.sendto(bytes((i * 5 + (i >> 8)) & 0xFF for i in range(size)), (address, 9))
            for frame in frames(out, 0.1):
                if frame[1]:
                    yield f"udp{name}-{segment}-{size}", frame


def with_one_hop_more(frame):
    frame = bytearray(frame)
    if frame[10] >> 4 == 6:
        frame[17] += 1
    else:
        frame[18] += 1
        frame[20:22] = b"\0\0"
        frame[20:22] = struct.pack(">H", checksum(bytes(frame[10:30])))
    return bytes(frame)


origin = new_namespace()
# CSUM, TSO4, TSO6, TSO_ECN, USO4, USO6
big = tun("big", 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40)
run("ip addr add 10.9.0.1/24 dev big")
run("ip -6 addr add fd09::1/64 dev big nodad")
for name, value in (("tcp_min_tso_segs", 40), ("tcp_no_metrics_save", 1)):
    open(f"/proc/sys/net/ipv4/{name}", "w").write(str(value))
router = new_namespace()
entry, exit_ = tun("entry", 0), tun("exit", 0)
for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
    open(f"/proc/sys/net/{name}", "w").write("1")
for name in ("all", "entry"):
    open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w").write("0")
run("ip route add 10.9.0.2 dev exit")
run("ip -6 route add fd09::2 dev exit")
libc.setns(origin, 0)
counts = {}
for name, frame in superpackets(big):
    counts[name] = counts.get(name, 0) + 1
    if counts[name] > 2:
        continue
    os.write(entry, with_one_hop_more(frame))
    segments = [segment[10:] for segment in frames(exit_, 0.2)]
    if not segments:
        sys.exit(f"{name}: the kernel sent nothing on")
    with open(f"{here}/{name}-{counts[name]}.bin", "wb") as file:
        for octets in [frame, *segments]:
            file.write(struct.pack(">I", len(octets)) + octets)
    print(name, frame[:10].hex(), len(frame), [len(segment) for segment in segments])
