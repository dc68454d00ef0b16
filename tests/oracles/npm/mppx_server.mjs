// What does a seller on mppx look like? Ten dollars of credit for a machine payment on Tempo; see ../mpp_server.py.
//
//     node mppx_server.mjs PACKAGE RPC_URL RECIPIENT OPTIONS CURRENCY...
//
// OPTIONS is a JSON object that Mppx.create takes as it is. For each currency there is one challenge, in their order.
import { createServer } from 'node:http'
import { createClient, http } from 'viem'
import { tempo as chain } from 'viem/chains'

const from = process.argv.findIndex((one) => one.startsWith('mppx'))
const [name, rpcUrl, recipient, options, ...currencies] = process.argv.slice(from)
const { Mppx, Request, tempo } = await import(`${name}/server`)
const client = createClient({ chain, transport: http(rpcUrl), pollingInterval: 50 })
const mppx = Mppx.create({
  methods: [tempo.charge({ recipient, getClient: () => client })],
  secretKey: 'no secret '.repeat(4),
  ...JSON.parse(options),
})

const offers = currencies.map((currency) => ['tempo/charge', { amount: '10', chainId: chain.id, currency }])

const server = createServer(
  Request.toNodeListener(async (request) => {
    const answer = await mppx.compose(...offers)(request)
    if (answer.status !== 200) return answer.challenge
    return answer.withReceipt(Response.json({ id: 'pi_1' }, { status: 202 }))
  }),
)
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
