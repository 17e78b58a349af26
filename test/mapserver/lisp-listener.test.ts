/** LISP over real sockets. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { LispListener } from '../../mapserver/shell/lisp-listener.ts';

test('an answer leaves from the address that was asked', async () => {
  const listener = await LispListener.start(['127.0.0.1:0', '127.0.0.2:0'], (from, bytes) =>
    listener.send(from, bytes),
  );
  const client = createSocket('udp4');
  for (const address of listener.addresses) {
    const [host = '', port = ''] = address.split(':');
    client.send('hello', Number(port), host);
    const [answer, remote] = (await once(client, 'message')) as [Buffer, { address: string; port: number }];
    assert.equal(answer.toString(), 'hello');
    assert.equal(`${remote.address}:${remote.port}`, address);
  }
  client.close();
  await listener.close();
});

test('an address that is taken is an error that names it', async () => {
  const listener = await LispListener.start(['127.0.0.1:0'], () => {});
  const [taken = ''] = listener.addresses;
  await assert.rejects(
    LispListener.start(['127.0.0.2:0', taken], () => {}),
    { code: 'STAYPUT_USAGE', message: `LISP cannot be served on ${taken} (EADDRINUSE)` },
  );
  await listener.close();
});
