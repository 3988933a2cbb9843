import { Type, type TSchema } from '@sinclair/typebox'
import { errorCodes, type ErrorCode } from '../errors.js'
import { challengeHeader, requestIdHeader, retryAfterHeader, type ResponseHeaders } from './response-headers.js'
import { stringEnum } from './string-enum.js'

/** The answer of every operation that succeeds: the data under `data`, beside `success: true`. */
export function successOf<T extends TSchema> (data: T, options: { $id?: string, description?: string, headers?: ResponseHeaders } = {}) {
  return Type.Object({
    success: Type.Literal(true, { examples: [true] }),
    data
  }, { ...options, additionalProperties: false })
}

export const ErrorResponse = Type.Object({
  success: Type.Literal(false, { examples: [false] }),
  error: Type.Object({
    code: stringEnum(Object.keys(errorCodes) as ErrorCode[], { description: 'Stable; branch on this.' }),
    message: Type.String({ description: 'For people: what was wrong and what to do.' }),
    details: Type.Optional(Type.Array(
      Type.Object({
        field: Type.String({ description: 'Where: a dotted path in the body, a parameter or a header.' }),
        reason: Type.String({ description: 'What was wrong there.' })
      }, { additionalProperties: false }),
      { description: 'One entry per problem, of the first twenty, with VALIDATION_ERROR.' }
    ))
  }, { additionalProperties: false })
}, { $id: 'ErrorResponse', additionalProperties: false, description: 'The answer of every operation that fails.' })

/** What an operation that takes a body can answer because of it, besides `VALIDATION_ERROR`. */
export const bodyFailures = ['INVALID_JSON', 'PAYLOAD_TOO_LARGE', 'UNSUPPORTED_MEDIA_TYPE'] as const satisfies ErrorCode[]

/**
 * The `response` entries of a route for the errors that it can answer: one per status, with one example per code.
 *
 * @param codes every code of the route, `INTERNAL_SERVER_ERROR` aside, which every route has
 */
export function failures (...codes: ErrorCode[]): Record<string, unknown> {
  const responses: Record<string, { description: string, headers: ResponseHeaders, content: { 'application/json': { schema: object, examples: Record<string, unknown> } } }> = {}
  for (const code of [...codes, 'INTERNAL_SERVER_ERROR'] as const) {
    const { status, description, example } = errorCodes[code]
    const response = responses[status] ??= {
      description,
      headers: { ...requestIdHeader, ...(status === 401 && challengeHeader), ...((status === 429 || status === 503) && retryAfterHeader) },
      content: { 'application/json': { schema: Type.Ref(ErrorResponse.$id!), examples: {} } }
    }
    if (response.description !== description) response.description += ` Or: ${description}`
    response.content['application/json'].examples[code] = { value: { success: false, error: { code, ...example } } }
  }
  return responses
}
