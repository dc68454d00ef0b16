// What would mppx do? One JSON question a line in, one JSON answer a line out. Run from the folder of its node_modules.
//
//     {"ask": "issue", "realm", "request", …}  → {"line": "Payment …"}
//     {"ask": "read", "line": "Payment …"}     → {"challenges": […]}, or {"refused"}
//     {"ask": "verify", "value": "Payment …"}  → {"own": whether it issued that, "payload", "source"}
//     {"ask": "decode", "raw": "0x76…"}        → the transaction as it reads it, its hash, and who signed it
//     {"ask": "receipt", "reference"}          → {"value": …}
//
// A request to issue is mppx's own: the amount in dollars, chain id and modes beside it.
import { createInterface } from 'node:readline'
import { Challenge, Credential, Receipt } from 'mppx'
import { Methods } from 'mppx/tempo'
import { SignatureEnvelope, TxEnvelopeTempo } from 'ox/tempo'

const secretKey = 'no secret'
const text = (_, value) => (typeof value === 'bigint' ? value.toString() : value)

const answers = {
  issue: ({ realm, ...more }) => ({
    line: Challenge.serialize(Challenge.fromMethod(Methods.charge, { secretKey, realm, ...more })),
  }),
  read: ({ line }) => ({ challenges: Challenge.deserializeList(line) }),
  verify: ({ value }) => {
    const { challenge, payload, source } = Credential.deserialize(value)
    return { own: Challenge.verify(challenge, { secretKey }), payload, source }
  },
  decode: ({ raw }) => {
    const transaction = TxEnvelopeTempo.deserialize(raw)
    const payload = TxEnvelopeTempo.getSignPayload(transaction)
    const { signature } = transaction
    const signer = SignatureEnvelope.extractAddress({ payload, signature, root: true })
    return { ...transaction, digest: payload, hash: TxEnvelopeTempo.hash(transaction), signer }
  },
  receipt: ({ reference }) => ({
    value: Receipt.serialize(
      Receipt.from({ method: 'tempo', reference, status: 'success', timestamp: '2026-11-23T07:00:00.000Z' }),
    ),
  }),
}

for await (const line of createInterface({ input: process.stdin })) {
  const { ask, ...asked } = JSON.parse(line)
  let told
  try {
    told = answers[ask](asked)
  } catch (error) {
    told = { refused: String(error) }
  }
  process.stdout.write(`${JSON.stringify(told, text)}\n`)
}
