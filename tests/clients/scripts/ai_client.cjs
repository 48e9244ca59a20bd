// Vercel's AI SDK over its OpenAI-compatible provider. Argument: URL.
const { generateText, streamText } = require("ai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");

async function main(url) {
  const provider = createOpenAICompatible({ name: "tgi", baseURL: `${url}/v1`, includeUsage: true });
  const call = { model: provider("tgi"), prompt: "Count to 10", maxOutputTokens: 8, temperature: 0, maxRetries: 0 };
  const whole = await generateText(call);
  const stream = streamText(call);
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  return {
    text: whole.text,
    finish: whole.finishReason,
    usage: whole.usage,
    pieces,
    stream_finish: await stream.finishReason,
    stream_usage: await stream.usage,
    completion: (await generateText({ ...call, model: provider.completionModel("tgi"), prompt: "Hello, " })).text,
  };
}

main(process.argv[2]).then((answer) => console.log(JSON.stringify(answer)));
