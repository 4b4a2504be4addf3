// Cluster of ioredis; or of its version 5, as ioredis5, where the first of two arguments says so.
// I/O: talks to a cluster.

import { main } from './journey.mjs'

const { Cluster } = await import(process.argv.length > 3 ? process.argv[2] : 'ioredis')

class IoRedis {
  constructor (client, options) {
    this.client = client
    this.options = options
  }

  set (key, value) { return this.client.set(key, value) }
  get (key) { return this.client.get(key) }

  async transaction (tag) {
    const replies = await this.client.multi().set(`{${tag}}:text`, 'x').incr(`{${tag}}:count`).get(`{${tag}}:text`).exec()
    return replies.map(([error, reply]) => { if (error) throw error; return reply })
  }

  // It splits what is asked at once by node, where it is told to; a pipeline() of its is for one node only.
  async pipeline (pairs) {
    const client = this.client.duplicate([], { ...this.options, enableAutoPipelining: true })
    await Promise.all(pairs.map(([key, value]) => client.set(key, value)))
    const found = await Promise.all(pairs.map(([key]) => client.get(key)))
    client.disconnect()
    return found
  }

  async hear (channels, sharded) {
    const heard = []
    const client = this.client.duplicate([], { ...this.options, shardedSubscribers: sharded })
    const done = new Promise(resolve => {
      client.on(sharded ? 'smessage' : 'message', (_, message) => {
        if (heard.push(message) === channels.length) resolve()
      })
    })
    // Channels of several slots are several commands.
    for (const channel of channels) await (sharded ? client.ssubscribe(channel) : client.subscribe(channel))
    for (const channel of channels) await (sharded ? this.client.spublish(channel, channel) : this.client.publish(channel, channel))
    await done
    client.disconnect()
    return heard
  }

  async scan (pattern) {
    const found = []
    for (const node of this.client.nodes('master')) {
      for (let cursor = '0', keys; ;) {
        [cursor, keys] = await node.scan(cursor, 'MATCH', pattern, 'COUNT', 100)
        found.push(...keys)
        if (cursor === '0') break
      }
    }
    return found
  }

  addresses () { return this.client.nodes('all').map(node => `${node.options.host}:${node.options.port}`) }
  close () { this.client.disconnect() }
}

await main(async ({ host, port, tls }) => {
  const options = tls ? { redisOptions: { tls } } : {}
  // Addresses are names in certificates: they are not to be looked up before they are dialled.
  if (tls) options.dnsLookup = (address, callback) => callback(null, address)
  const client = new Cluster([{ host, port }], options)
  client.on('error', () => {})
  await new Promise(resolve => client.once('ready', resolve))
  return new IoRedis(client, options)
})
