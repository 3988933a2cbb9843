import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import { TierLimits } from '../schemas/api-key.js'
import { successOf } from '../schemas/envelope.js'
import { Tier } from '../schemas/tier.js'

export const limits: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.get('/limits', {
    schema: {
      operationId: 'getLimits',
      tags: ['Service'],
      summary: 'What the key may do, and what is left of it',
      description: 'Answers the key\'s tier, its limits, and what is left of them on all instances together. This request counts as well.',
      response: {
        200: successOf(Type.Object({
          tier: Tier,
          limits: TierLimits,
          requests: Type.Optional(Type.Object({
            remaining: Type.Integer({ minimum: 0, description: 'Requests that are left in the window.', examples: [9_988] }),
            resetSeconds: Type.Integer({ minimum: 0, description: 'Seconds until the window ends, and the count begins anew.', examples: [2_710] })
          }, { additionalProperties: false, description: 'Absent where the service counts no requests, or cannot at the moment and lets them through.' })),
          sessions: Type.Object({
            live: Type.Integer({ minimum: 0, description: 'Sessions that have not expired.', examples: [12] }),
            remaining: Type.Integer({ minimum: 0, description: 'Sessions that can be created now.', examples: [988] })
          }, { additionalProperties: false })
        }, { additionalProperties: false }), { description: 'The limits.' })
      }
    }
  }, async (request) => {
    const { id, tier } = request.principal!
    const limits = fastify.tierLimits[tier]
    const [count, live] = await Promise.all([fastify.requestLimits.remaining(request), fastify.sessionRepository.countLive(id)])
    return {
      success: true as const,
      data: {
        tier,
        limits,
        ...(count && { requests: { remaining: count.remaining, resetSeconds: count.ttlInSeconds } }),
        // A limit that was lowered takes away no session.
        sessions: { live, remaining: Math.max(0, limits.maxSessions - live) }
      }
    }
  })
}
