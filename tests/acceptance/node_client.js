// Walks through Cloud Tasks by Google's Node client, at the door that the arguments name, and
// prints what it saw as JSON.
'use strict';

const {CloudTasksClient} = require('@google-cloud/tasks');
const {grpc} = require('google-gax');

const [door, port, parent, queueId] = process.argv.slice(2);

// Over REST the client asks whoever authenticates for headers, and has them fetch.
const nobody = {
  getClient: async () => ({getRequestHeaders: async () => ({})}),
  getProjectId: async () => 'p',
  getUniverseDomain: async () => 'googleapis.com',
  fetch,
};

const address = {servicePath: 'localhost', port: Number(port)};
const client = new CloudTasksClient(
  door === 'grpc'
    ? {...address, sslCreds: grpc.credentials.createInsecure()}
    : {...address, fallback: true, protocol: 'http', auth: nobody}
);

async function refusal(call) {
  try {
    await call;
  } catch (error) {
    const text = error.message.replace(/^\d+ [A-Z_]+: /, '');
    return {code: error.code, text, details: error.statusDetails || []};
  }
  return null;
}

async function main() {
  const name = `${parent}/queues/${queueId}`;
  const seen = {};
  const minBackoff = {seconds: 0, nanos: 500000000};
  [seen.queue] = await client.createQueue({parent, queue: {name, retryConfig: {minBackoff}}});
  [seen.updated] = await client.updateQueue({
    queue: {name, retryConfig: {maxAttempts: 5}},
    updateMask: {paths: ['retry_config.max_attempts']},
  });
  const body = Buffer.from([0xff, 0xfe, 0x3f, 0x3e]);
  const httpRequest = {url: 'http://localhost:9/', httpMethod: 'PUT', body};
  for (const id of ['a', 'b', 'c']) {
    await client.createTask({parent: name, task: {name: `${name}/tasks/${id}`, httpRequest}});
  }
  const [full] = await client.getTask({name: `${name}/tasks/a`, responseView: 'FULL'});
  seen.full = {
    view: full.view,
    method: full.httpRequest.httpMethod,
    body: Buffer.from(full.httpRequest.body).toString('hex'),
    deadline: full.dispatchDeadline,
  };
  const [first, next] = await client.listTasks(
    {parent: name, pageSize: 2},
    {autoPaginate: false}
  );
  const [rest] = await client.listTasks(next, {autoPaginate: false});
  seen.pages = [first, rest].map(page => page.map(task => task.name.slice(-1)).join(''));
  await client.deleteTask({name: `${name}/tasks/a`});
  [seen.paused] = await client.pauseQueue({name});
  [seen.ran] = await client.runTask({name: `${name}/tasks/b`});
  seen.exists = await refusal(client.createQueue({parent, queue: {name}}));
  seen.bad = await refusal(
    client.createTask({parent: name, task: {name: `${name}/tasks/a.b`, httpRequest}})
  );
  seen.gone = await refusal(client.getTask({name: `${name}/tasks/a`}));
  [seen.policy] = await client.getIamPolicy({resource: name});
  console.log(JSON.stringify(seen));
}

main().then(
  () => process.exit(0),
  error => {
    console.error(error);
    process.exit(1);
  }
);
