/** Opens a store on the file given, says so, and stays until it is killed. */
import { openStore } from '../harness.ts'

await openStore(process.argv[2] ?? '', [])
console.log('held')
setInterval(() => {}, 60_000)
