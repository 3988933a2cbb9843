import neostandard from 'neostandard'

export default [
  ...neostandard({ ts: true, ignores: ['dist/**', '.tap/**', '.cache/**', '.data/**'] }),
  {
    files: ['**/*.ts'],
    rules: {
      // A schema and the type it gives share a name; a flag may be set by an event while a loop awaits; `void` says
      // that a promise is meant to go on by itself.
      '@typescript-eslint/no-redeclare': 'off',
      'no-unmodified-loop-condition': 'off',
      'no-void': ['error', { allowAsStatement: true }],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      // `import { type A }` would load the module that it takes nothing from.
      '@typescript-eslint/no-import-type-side-effects': 'error'
    }
  },
  {
    files: ['src/**/*.ts'],
    languageOptions: { parserOptions: { project: './tsconfig.json' } },
    rules: {
      // A promise nobody awaits is an error nobody sees.
      '@typescript-eslint/no-floating-promises': 'error'
    }
  }
]
