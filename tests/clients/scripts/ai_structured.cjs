// The AI SDK: objects, tools and streams of them; openai-node with tools. Argument: URL.
const { generateObject, streamObject, generateText, streamText, jsonSchema, tool } = require("ai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const OpenAI = require("openai");

const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Paris", "London"] } },
  required: ["city"],
  additionalProperties: false,
};
const prompt = "What is the weather in Paris?";

async function main(url) {
  const provider = createOpenAICompatible({ name: "tgi", baseURL: `${url}/v1`, apiKey: "-", supportsStructuredOutputs: true });
  const given = { model: provider("tgi"), prompt, temperature: 0, maxOutputTokens: 100, maxRetries: 0 };
  const schema = jsonSchema(parameters);
  const tools = { get_weather: tool({ description: "The weather", inputSchema: schema }) };
  const object = await generateObject({ ...given, schema });
  const objects = streamObject({ ...given, schema });
  const parts = [];
  for await (const part of objects.partialObjectStream) parts.push(part);
  const called = await generateText({ ...given, tools, toolChoice: "required" });
  const stream = streamText({ ...given, tools, toolChoice: { type: "tool", toolName: "get_weather" } });
  const streamed = [];
  for await (const part of stream.fullStream) streamed.push(part.type);
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "-", maxRetries: 0 });
  const chat = { model: "tgi", messages: [{ role: "user", content: prompt }], temperature: 0, max_tokens: 100 };
  const functions = [{ type: "function", function: { name: "get_weather", parameters, strict: true } }];
  const format = { type: "json_schema", json_schema: { name: "weather", schema: parameters, strict: true } };
  const helper = client.chat.completions.stream({ ...chat, tools: functions, tool_choice: "required" });
  return {
    object: object.object,
    objects: parts.at(-1),
    calls: called.toolCalls.map(({ toolName, input }) => ({ toolName, input })),
    finish: called.finishReason,
    streamed,
    stream_calls: (await stream.toolCalls).map(({ toolName, input }) => ({ toolName, input })),
    node_format: (await client.chat.completions.create({ ...chat, response_format: format })).choices[0].message.content,
    node_call: (await client.chat.completions.create({ ...chat, tools: functions, tool_choice: "required" })).choices[0],
    node_stream: (await helper.finalChatCompletion()).choices[0],
  };
}

main(process.argv[2]).then((answer) => console.log(JSON.stringify(answer)));
