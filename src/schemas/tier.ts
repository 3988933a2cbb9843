import type { Static } from '@sinclair/typebox'
import { stringEnum } from './string-enum.js'

/** The tiers of an API key, the lowest first. */
export const tierNames = ['free', 'pro', 'enterprise'] as const

export const Tier = stringEnum(tierNames, {
  description: 'What the key may do and how often. Sessions need pro or enterprise.',
  examples: ['pro']
})

/** What a caller may do and how often: `free`, `pro` or `enterprise`. */
export type Tier = Static<typeof Tier>
