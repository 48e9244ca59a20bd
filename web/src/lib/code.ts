/** A request as a command or a program; the key is a variable, never itself. */
import { address } from './api';

export type CodeLanguage = 'curl' | 'python' | 'javascript';

export function asCode(language: CodeLanguage, path: string, body: Record<string, unknown>, withKey: boolean): string {
  const whole = JSON.parse(JSON.stringify({ ...body, stream: true }));
  if (language === 'curl') return curl(path, whole, withKey);
  return language === 'python' ? python(path, whole, withKey) : javascript(path, whole, withKey);
}

function curl(path: string, body: unknown, withKey: boolean): string {
  const data = JSON.stringify(body, null, 2).replaceAll("'", `'\\''`);
  const key = withKey ? ` \\\n  -H "Authorization: Bearer $TGI_API_KEY"` : '';
  return `curl -N '${address(path)}' \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${data}'`;
}

/** Names that OpenAI's client knows; the others go into \`extra_body\`. */
const OPENAI = new Set([
  'model', 'messages', 'prompt', 'stream', 'temperature', 'top_p', 'max_tokens', 'n', 'seed', 'stop', 'logprobs',
  'top_logprobs', 'frequency_penalty', 'presence_penalty', 'logit_bias', 'response_format', 'tools', 'tool_choice',
  'parallel_tool_calls', 'reasoning_effort',
]);

function python(path: string, body: Record<string, unknown>, withKey: boolean): string {
  const known = Object.entries(body).filter(([name]) => OPENAI.has(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !OPENAI.has(name)));
  const lines = known.map(([name, value]) => `    ${name}=${literal(value, 4)},`);
  if (Object.keys(extra).length) lines.push(`    extra_body=${literal(extra, 4)},`);
  const chat = path.includes('chat');
  const key = withKey ? 'os.environ["TGI_API_KEY"]' : '"unused"';
  return `${withKey ? 'import os\n\n' : ''}from openai import OpenAI

client = OpenAI(base_url="${address('v1')}", api_key=${key})
stream = client.${chat ? 'chat.completions' : 'completions'}.create(
${lines.join('\n')}
)
for chunk in stream:
    for choice in chunk.choices:
        print(${chat ? 'choice.delta.content or ""' : 'choice.text'}, end="", flush=True)
print()`;
}

function literal(value: unknown, indent: number): string {
  const pad = ' '.repeat(indent + 4);
  const end = ' '.repeat(indent);
  if (value === null) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (Array.isArray(value)) {
    if (!value.length) return '[]';
    return `[\n${value.map((one) => `${pad}${literal(one, indent + 4)},`).join('\n')}\n${end}]`;
  }
  if (typeof value === 'object') {
    const items = Object.entries(value as object).map(([name, one]) => `${pad}${JSON.stringify(name)}: ${literal(one, indent + 4)},`);
    return items.length ? `{\n${items.join('\n')}\n${end}}` : '{}';
  }
  return JSON.stringify(value);
}

function javascript(path: string, body: unknown, withKey: boolean): string {
  const key = withKey ? `\n    authorization: \`Bearer \${process.env.TGI_API_KEY}\`,` : '';
  const chat = path.includes('chat');
  return `const response = await fetch("${address(path)}", {
  method: "POST",
  headers: {
    "content-type": "application/json",${key}
  },
  body: JSON.stringify(${JSON.stringify(body, null, 2).replaceAll('\n', '\n  ')}),
});
let rest = "";
for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + piece).split("\\n");
  rest = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data:") || line.includes("[DONE]")) continue;
    const choice = JSON.parse(line.slice(5)).choices[0];
    process.stdout.write(${chat ? 'choice?.delta.content ?? ""' : 'choice?.text ?? ""'});
  }
}`;
}
