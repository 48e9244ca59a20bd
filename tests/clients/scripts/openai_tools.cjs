// OpenAI's library for node: its runner calls a tool and gives the result back, streamed. Argument: URL.
const OpenAI = require("openai");

async function main(url) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "-", maxRetries: 0 });
  const inputs = [];
  const parameters = { type: "object", properties: { location: { type: "string" } }, required: ["location"] };
  const runner = client.chat.completions.runTools({
    model: "tgi",
    stream: true,
    temperature: 0,
    max_completion_tokens: 80,
    messages: [{ role: "user", content: "What is the weather in Paris?" }],
    tools: [
      {
        type: "function",
        function: {
          name: "get_weather",
          parameters,
          parse: JSON.parse,
          function: (input) => {
            inputs.push(input);
            return "sunny, 21 C";
          },
        },
      },
    ],
  });
  const text = await runner.finalContent();
  const forced = await client.chat.completions.create({
    model: "tgi",
    temperature: 0,
    max_completion_tokens: 80,
    messages: [{ role: "user", content: "What is the weather in Paris?" }],
    tools: [{ type: "function", function: { name: "get_weather", parameters } }],
    tool_choice: { type: "function", function: { name: "get_weather" } },
  });
  return { inputs, text, roles: runner.messages.map((one) => one.role), forced: forced.choices[0] };
}

main(process.argv[2]).then((answer) => console.log(JSON.stringify(answer)));
