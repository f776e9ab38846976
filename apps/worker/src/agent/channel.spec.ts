import { channelCredentials, channelOptions } from './channel';

const tls = { ca: null, own: null, serverName: null };

test('files that are not there are named by their settings', async () => {
  await expect(channelCredentials({ ...tls, ca: '/none/ca.pem' })).rejects.toThrow(/TUNEFLEET_TLS_CA: .*none\/ca\.pem/);
  await expect(channelCredentials({ ...tls, own: { cert: '/none/cert.pem', key: '/none/key.pem' } })).rejects.toThrow(/TUNEFLEET_TLS_KEY: /);
});

test('TLS only when it is asked for, with the name that is asked for', async () => {
  expect([(await channelCredentials(null))._isSecure(), (await channelCredentials(tls))._isSecure()]).toEqual([false, true]);
  expect(channelOptions({ ...tls, serverName: 'control' })).toMatchObject({ 'grpc.ssl_target_name_override': 'control' });
  expect(channelOptions(tls)).not.toHaveProperty('grpc.ssl_target_name_override');
});
