// openai-node on chat and completions. Arguments: URL, URL of a busy server, its key.
const OpenAI = require("openai");

const messages = [{ role: "user", content: "Count to 10" }];
const chat = { model: "tgi", messages, max_completion_tokens: 8, temperature: 0 };
const completion = { model: "tgi", prompt: "Hello, ", max_tokens: 8, temperature: 0 };

async function raised(call) {
  try {
    await call();
  } catch (error) {
    const { status, param, message } = error;
    return { type: error.constructor.name, status, param, text: message, retry_after: error.headers?.get("retry-after") };
  }
  return { type: "nothing" };
}

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function main(url, busy, key) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "-", maxRetries: 0 });
  const full = new OpenAI({ baseURL: `${busy}/v1`, apiKey: key, maxRetries: 0 });
  const stranger = new OpenAI({ baseURL: `${busy}/v1`, apiKey: "wrong", maxRetries: 0 });
  const helper = client.chat.completions.stream({ ...chat, stream_options: { include_usage: true } });
  return {
    chat: await client.chat.completions.create({ ...chat, logprobs: true, top_logprobs: 2, n: 2, temperature: 1, seed: 3 }),
    greedy: await client.chat.completions.create(chat),
    stream: await all(await client.chat.completions.create({ ...chat, stream: true })),
    helper: await helper.finalChatCompletion(),
    completion: await client.completions.create({ ...completion, logprobs: 1, echo: true }),
    completion_stream: await all(await client.completions.create({ ...completion, stream: true })),
    models: await all(client.models.list()),
    invalid: await raised(() => client.chat.completions.create({ ...chat, temperature: -1 })),
    overloaded: await raised(() => full.chat.completions.create(chat)),
    wrong_key: await raised(() => stranger.chat.completions.create(chat)),
  };
}

main(...process.argv.slice(2)).then((answer) => console.log(JSON.stringify(answer)));
