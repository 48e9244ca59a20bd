/** Checks an answer against the JSON schema that it was asked to follow; without `eval`, which the policy forbids. */
import { Validator } from '@cfworker/json-schema';

export type Verdict = { ok: true } | { ok: false; why: string; json: boolean };

export function verdict(answer: string, schema: string): Verdict {
  let value: unknown;
  try {
    value = JSON.parse(answer);
  } catch (error) {
    return { ok: false, json: false, why: (error as Error).message };
  }
  try {
    const result = new Validator(JSON.parse(schema), '2020-12', false).validate(value);
    if (result.valid) return { ok: true };
    const worst = result.errors[result.errors.length - 1]!;
    return { ok: false, json: true, why: `${worst.instanceLocation}: ${worst.error}` };
  } catch (error) {
    return { ok: false, json: true, why: (error as Error).message };
  }
}
