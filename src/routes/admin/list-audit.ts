import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import { auditActions } from '../../plugins/audit-repository.js'
import { failures, successOf } from '../../schemas/envelope.js'
import { stringEnum } from '../../schemas/string-enum.js'
import { timestamp } from '../../schemas/timestamp.js'
import { adminFailures, pageLimit } from './shared.js'

const Action = stringEnum(auditActions, { description: 'What was done.', examples: ['session.update'] })
const keyId = 'key_0193a5c8b6e0f41d7c9a2be85360d4f7'

const AuditEntry = Type.Object({
  id: Type.String({ description: 'Later entries have greater ids.', examples: ['4711'] }),
  at: timestamp('When.'),
  actor: Type.String({ description: 'Who: an API key\'s id, or a host\'s caller; `admin` or `command line` for changes to keys.', examples: [keyId] }),
  action: Action,
  keyId: Type.String({ description: 'The key that it is about, or whose session.', examples: [keyId] }),
  subject: Type.String({ description: 'The key\'s id, or the beginning of the session\'s, which identifies it and is not enough to use it.', examples: ['sess_0193a5c8b6e0f41d7c9a2be8'] }),
  properties: Type.Array(Type.String(), { description: 'The names of the properties that were set; values are not kept.', examples: [['chain']] })
}, { additionalProperties: false })

export const listAudit: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.get('/audit', {
    schema: {
      operationId: 'listAudit',
      tags: ['Admin'],
      summary: 'Read the audit log',
      description: 'Answers who changed which key or session, when, and which properties, page by page, the newest first. A page of a key or of an action may have fewer entries than asked for, or none, where they are far apart: as long as there is a `nextCursor` there may be more.',
      querystring: Type.Object({
        limit: pageLimit('Entries on a page at most.'),
        cursor: Type.Optional(Type.String({ pattern: '^[1-9][0-9]{0,17}$', description: '`nextCursor` of the page before.' })),
        // NUL cannot be asked for: no id holds it.
        key: Type.Optional(Type.String({ minLength: 1, maxLength: 500, pattern: '^[^\\u0000]+$', description: 'Only what is about this key, or a session of this key.' })),
        // Without an example, which Swagger UI would ask for.
        action: Type.Optional(stringEnum(auditActions, { description: 'Only what was done by this.' }))
      }, { additionalProperties: false }),
      response: {
        200: successOf(Type.Object({
          entries: Type.Array(AuditEntry),
          nextCursor: Type.Optional(Type.String({ description: 'Send it as `cursor` to get the next page; absent on the last.', examples: ['4612'] }))
        }, { additionalProperties: false }), { description: 'A page of entries.' }),
        ...failures('VALIDATION_ERROR', ...adminFailures)
      }
    }
  }, async (request) => {
    const { limit, cursor, key, action } = request.query
    return { success: true as const, data: await fastify.auditRepository.list({ limit, cursor, keyId: key, action }) }
  })
}
