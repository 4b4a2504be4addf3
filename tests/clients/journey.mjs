// What each client program of Node.js does, whatever its library: journey.py tells what, and what it prints.
// I/O: stdout, signals; the cluster, through a library.
//
// A library has: set(key, value), get(key), transaction(tag), pipeline(pairs), hear(channels, sharded), scan(pattern),
// addresses(), close(); all may return promises.

import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'

const KEYS = 600
const SINGLY = 150
const TAGS = 24
const CHANNELS = 8
const PAUSE_MS = 4
const ERROR_PAUSE_MS = 50
const OPERATION_MS = 15000
const MOST_SHOWN = 200

const now = () => Date.now() / 1000
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))
const tell = (event, more = {}) => console.log(JSON.stringify({ event, at: now(), ...more }))

function expect (found, wanted, what) {
  if (!isDeepStrictEqual(found, wanted)) {
    throw new Error(`${what}: ${JSON.stringify(found).slice(0, 500)} instead of ${JSON.stringify(wanted).slice(0, 500)}`)
  }
}

async function within (promise) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error('it took too long')), OPERATION_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

async function tour (library, name) {
  const pairs = Array.from({ length: KEYS }, (_, number) => [`${name}:${number}`, String(number)])
  const some = pairs.slice(0, SINGLY)
  for (const [key, value] of some) await within(library.set(key, value))
  for (const [key, value] of some) expect(await within(library.get(key)), value, key)
  expect(await within(library.pipeline(pairs)), pairs.map(([, value]) => value), 'pipeline')
  for (let number = 0; number < TAGS; number++) {
    expect((await within(library.transaction(`${name}:t${number}`))).slice(1), [1, 'x'], 'transaction')
  }
  for (const sharded of [false, true]) {
    const channels = Array.from({ length: CHANNELS }, (_, number) => `${name}:c${number}`)
    expect((await within(library.hear(channels, sharded))).sort(), channels, `pub/sub, sharded ${sharded}`)
  }
  const keys = pairs.map(([key]) => key)
  expect([...new Set(await within(library.scan(`${name}:[0-9]*`)))].sort(), keys.sort(), 'scan')
  return { addresses: (await within(library.addresses())).sort() }
}

class Life {
  acknowledged = new Map()
  lost = []
  errors = []
  longestGap = 0
  lastSuccess = now()
  isBroken = false

  constructor (library, name) {
    this.library = library
    this.name = name
  }

  async goOn (isOver) {
    for (let rounds = 0; !isOver();) {
      for (let number = 0; number < TAGS; number++) await this.step(`${this.name}:live:${number}`, rounds)
      tell('round', { number: ++rounds })
    }
  }

  async step (tag, number) {
    const [key, earlier] = [number, Math.floor(number / 2)].map(each => `{${tag}}:${each}`)
    try {
      await within(this.library.set(key, String(number)))
      this.acknowledged.set(key, String(number))
      const wanted = this.acknowledged.get(earlier)
      if (wanted !== undefined && await within(this.library.get(earlier)) !== wanted) this.lost.push(earlier)
      this.succeed()
    } catch (error) {
      this.fail(error)
      await pause(ERROR_PAUSE_MS)
    }
    await pause(PAUSE_MS)
  }

  fail (error) {
    this.isBroken = true
    const text = String(error).slice(0, 200)
    this.errors.push([now(), text])
    if (this.errors.length <= MOST_SHOWN) tell('error', { error: text })
  }

  succeed () {
    const gap = now() - this.lastSuccess
    this.lastSuccess = now()
    this.longestGap = Math.max(this.longestGap, gap)
    if (this.isBroken) {
      this.isBroken = false
      tell('healed', { seconds: gap })
    }
  }

  async verify () {
    for (const [key, value] of this.acknowledged) {
      if (await within(this.library.get(key)) !== value) this.lost.push(key)
    }
  }

  summary () {
    return {
      acknowledged: this.acknowledged.size,
      lost: this.lost.slice(0, MOST_SHOWN),
      errors: this.errors.slice(0, MOST_SHOWN),
      longest_gap: this.longestGap
    }
  }
}

export async function main (connect) {
  const order = JSON.parse(process.argv.at(-1))
  let isOver = false
  process.on('SIGTERM', () => { isOver = true })
  try {
    const tls = order.tls && {
      ca: readFileSync(order.tls.ca),
      cert: readFileSync(order.tls.certificate),
      key: readFileSync(order.tls.key)
    }
    const library = await within(connect({ host: order.host, port: order.port, tls }))
    tell('tour', await tour(library, order.name))
    let lost = []
    if (order.live) {
      const life = new Life(library, order.name)
      // Of commands that a library sends by itself, such as ASKING, and does not wait for: an error as any other.
      process.on('unhandledRejection', error => life.fail(error))
      await life.goOn(() => isOver)
      await life.verify()
      lost = life.lost
      tell('summary', life.summary())
    }
    await library.close()
    process.exit(lost.length ? 1 : 0)
  } catch (error) {
    tell('failed', { error: String(error.stack).slice(0, 2000) })
    process.exit(1)
  }
}
