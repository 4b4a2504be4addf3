// createCluster of node-redis. I/O: talks to a cluster.

import { createCluster } from 'redis'
import { main } from './journey.mjs'

class NodeRedis {
  constructor (client) { this.client = client }

  set (key, value) { return this.client.set(key, value) }
  get (key) { return this.client.get(key) }

  transaction (tag) {
    return this.client.multi().set(`{${tag}}:text`, 'x').incr(`{${tag}}:count`).get(`{${tag}}:text`).exec()
  }

  // What is asked in one go is sent in one go, to each node its part.
  async pipeline (pairs) {
    await Promise.all(pairs.map(([key, value]) => this.client.set(key, value)))
    return Promise.all(pairs.map(([key]) => this.client.get(key)))
  }

  async hear (channels, sharded) {
    const heard = []
    const [subscribe, unsubscribe, publish] = sharded
      ? ['sSubscribe', 'sUnsubscribe', 'sPublish']
      : ['subscribe', 'unsubscribe', 'publish']
    const done = new Promise((resolve, reject) => {
      const listener = message => { if (heard.push(message) === channels.length) resolve() }
      const speak = async () => {
        for (const channel of channels) await this.client[subscribe](channel, listener)
        for (const channel of channels) await this.client[publish](channel, channel)
      }
      speak().catch(reject)
    })
    await done
    for (const channel of channels) await this.client[unsubscribe](channel)
    return heard
  }

  async scan (pattern) {
    const found = []
    for (const master of this.client.masters) {
      const node = await this.client.nodeClient(master)
      for await (const keys of node.scanIterator({ MATCH: pattern, COUNT: 100 })) found.push(...[keys].flat())
    }
    return found
  }

  addresses () { return [...this.client.masters, ...this.client.replicas].map(node => node.address) }
  close () { return this.client.destroy() }
}

await main(async ({ host, port, tls }) => {
  const socket = tls ? { tls: true, ...tls } : {}
  const client = createCluster({
    rootNodes: [{ socket: { ...socket, host, port } }],
    defaults: { socket }
  })
  client.on('error', () => {})
  await client.connect()
  return new NodeRedis(client)
})
