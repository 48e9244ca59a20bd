// Vercel's AI SDK with tools: it calls them itself and gives the results back, whole and streamed. Argument: URL.
const { generateText, streamText, stepCountIs, tool, jsonSchema } = require("ai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");

async function main(url) {
  const provider = createOpenAICompatible({ name: "tgi", baseURL: `${url}/v1`, includeUsage: true });
  const inputs = [];
  const get_weather = tool({
    description: "The weather of a city",
    inputSchema: jsonSchema({
      $schema: "http://json-schema.org/draft-07/schema#",
      type: "object",
      properties: { location: { type: "string" } },
      required: ["location"],
      additionalProperties: false,
    }),
    execute: async (input) => {
      inputs.push(input);
      return "sunny, 21 C";
    },
  });
  const call = {
    model: provider("tgi"),
    prompt: "What is the weather in Paris?",
    tools: { get_weather },
    maxOutputTokens: 80,
    temperature: 0,
    maxRetries: 0,
  };
  const whole = await generateText({ ...call, toolChoice: "required" });
  const stream = streamText({ ...call, stopWhen: stepCountIs(2) });
  const kinds = new Set();
  for await (const part of stream.fullStream) kinds.add(part.type);
  return {
    inputs,
    finish: whole.finishReason,
    calls: whole.toolCalls.map((one) => [one.toolName, one.input]),
    kinds: [...kinds],
    steps: (await stream.steps).map((step) => [step.finishReason, step.toolCalls.length, step.text]),
  };
}

main(process.argv[2]).then((answer) => console.log(JSON.stringify(answer)));
