// What a new user does in the browser: opens Swagger UI of the built service as npm start runs it, authorizes with the
// key that was printed, and executes the four operations with the examples that are filled in already.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { beforeExit } from './before-exit.js'

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
if (!existsSync(executablePath)) {
  console.error(`There is no Chromium at ${executablePath}. Install Debian's package chromium, or set CHROMIUM to where one is.`)
  process.exit(1)
}

const dataDir = mkdtempSync(join(tmpdir(), 'sipher-browser-'))
chmodSync(dataDir, 0o755)
const service = spawn('npm', ['start'], { env: { ...process.env, PORT: '0', DATA_DIR: dataDir }, stdio: ['ignore', 'pipe', 'inherit'], detached: true })
const ended = new Promise(resolve => service.once('exit', resolve))
let browser
const cleanUp = beforeExit(async () => {
  await browser?.close()
  service.kill('SIGTERM')
  await ended
  rmSync(dataDir, { recursive: true, force: true })
})

let passed = 0
let failed = 0
async function check (name, step) {
  try {
    await step()
    passed++
    console.log(`ok - ${name}`)
  } catch (error) {
    failed++
    console.log(`not ok - ${name}\n${error.stack}`)
  }
}

try {
  browser = await chromium.launch({
    executablePath,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
  })
  const { url, key } = await started()
  const page = await browser.newPage({ viewport: { width: 1280, height: 1600 } })
  const complaints = []
  page.on('console', message => { if (message.type() === 'error' && !message.text().includes('404')) complaints.push(message.text()) })
  page.on('pageerror', error => complaints.push(String(error)))
  page.on('request', request => { if (!request.url().startsWith(url) && !request.url().startsWith('data:')) complaints.push(`a request to ${request.url()}`) })

  await page.goto(`${url}/docs`)
  await page.getByRole('button', { name: 'Authorize' }).first().click()
  await page.locator('.auth-container', { hasText: 'ApiKeyAuth' }).locator('input').fill(key)
  await page.locator('.auth-container', { hasText: 'ApiKeyAuth' }).getByRole('button', { name: 'Apply credentials' }).click()
  await page.locator('.close-modal').click()

  let sessionId
  await check('createSession answers 201 to the example that is filled in', async () => {
    const { status, body } = await execute(page, 'createSession')
    assert.equal(status, 201)
    assert.deepEqual(Object.keys(body.data.defaults), ['chain', 'privacyLevel', 'rpcProvider', 'backend', 'defaultViewingKey'])
    sessionId = body.data.sessionId
  })
  await check('getSession answers the session', async () => {
    const { status, body } = await execute(page, 'getSession', sessionId)
    assert.equal(status, 200)
    assert.equal(body.data.sessionId, sessionId)
  })
  await check('updateSession answers 200 to the example that is filled in', async () => {
    const { status, body } = await execute(page, 'updateSession', sessionId)
    assert.equal(status, 200)
    assert.equal(body.data.sessionId, sessionId)
  })
  await check('deleteSession ends the session', async () => {
    const { status, body } = await execute(page, 'deleteSession', sessionId)
    assert.equal(status, 200)
    assert.deepEqual(body.data, { sessionId, deleted: true })
    assert.equal((await fetch(`${url}/v1/sessions/${sessionId}`, { headers: { 'x-api-key': key } })).status, 404)
  })
  await check('the page has no error and asks nobody else', async () => assert.deepEqual(complaints, []))
  mkdirSync('.cache', { recursive: true })
  await page.screenshot({ path: '.cache/swagger-ui.png', fullPage: true })
} finally {
  await cleanUp()
  await check('npm start ends by SIGTERM', async () => assert.equal(await ended, 0))
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1

/** The address and the pro key that the first start prints. */
async function started () {
  let output = ''
  for await (const chunk of service.stdout.setEncoding('utf8')) {
    output += chunk
    const match = /is listening on (\S+)[\s\S]*pro key +(\S+)[\s\S]*curl/.exec(output)
    if (match) {
      service.stdout.resume()
      return { url: match[1], key: match[2] }
    }
  }
  throw new Error(`npm start ended and printed:\n${output}`)
}

/** Opens an operation, fills in its id, if it has one, presses Execute, and returns what the page shows. */
async function execute (page, operationId, id) {
  const operation = page.locator(`[id$="-${operationId}"]`)
  await operation.locator('.opblock-summary-control').click()
  if (id) await operation.locator('tr[data-param-name="id"] input').fill(id)
  const [response] = await Promise.all([
    page.waitForResponse(response => response.url().includes('/v1/sessions')),
    operation.getByRole('button', { name: 'Execute' }).click()
  ])
  await operation.locator('.live-responses-table .response-col_status').first().waitFor()
  const status = Number((await operation.locator('.live-responses-table tbody .response-col_status').first().innerText()).match(/\d+/)[0])
  const body = await response.json()
  return { status, body }
}
