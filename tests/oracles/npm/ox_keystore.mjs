// Opens a keystore with the library `ox`: its file and its password are arguments, and its key is printed.
import { readFileSync } from 'node:fs'
import { Keystore } from 'ox'

const [file, password] = process.argv.slice(1)
const store = JSON.parse(readFileSync(file, 'utf8'))
console.log(Keystore.decrypt(store, Keystore.toKey(store, { password })))
