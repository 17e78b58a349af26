/** Loaded into the map server beside what it is: answers each message of the bench with the octets of its heap in use. */
process.on('message', () => {
  gc?.();
  const { heapUsed, external } = process.memoryUsage();
  process.send?.(heapUsed + external);
});
// Waiting for questions is nothing to stay alive for.
process.channel?.unref();
