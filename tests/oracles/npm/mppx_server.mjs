// What does a seller on mppx look like? Ten dollars of credit for a machine payment on Tempo; see ../mpp_server.py.
//
//     node mppx_server.mjs RPC_URL CURRENCY RECIPIENT
import { createServer } from 'node:http'
import { Mppx, Request, tempo } from 'mppx/server'
import { createClient, http } from 'viem'
import { tempo as chain } from 'viem/chains'

const [rpcUrl, currency, recipient] = process.argv.slice(-3)
const client = createClient({ chain, transport: http(rpcUrl), pollingInterval: 50 })
const mppx = Mppx.create({
  methods: [tempo.charge({ currency, recipient, getClient: () => client })],
  realm: 'openrouter.ai',
  requiresAuth: true,
  secretKey: 'no secret '.repeat(4),
})

const server = createServer(
  Request.toNodeListener(async (request) => {
    const answer = await mppx.charge({ amount: '10', chainId: chain.id })(request)
    if (answer.status !== 200) return answer.challenge
    return answer.withReceipt(Response.json({ id: 'pi_1' }, { status: 202 }))
  }),
)
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
