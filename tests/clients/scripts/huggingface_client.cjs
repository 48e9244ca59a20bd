// @huggingface/inference with an endpoint of one's own. Argument: URL.
const { InferenceClient, textGeneration, chatCompletion } = require("@huggingface/inference");

const messages = [{ role: "user", content: "Count to 10" }];

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function main(url) {
  const client = new InferenceClient();
  const own = client.endpoint(url);
  const parameters = { max_new_tokens: 8 };
  const chat = { messages, max_tokens: 8, temperature: 0 };
  return {
    text: await textGeneration({ endpointUrl: url, inputs: "Hello, ", parameters }),
    text_stream: await all(client.textGenerationStream({ endpointUrl: url, inputs: "Hello, ", parameters })),
    chat: await own.chatCompletion(chat),
    chat_stream: await all(own.chatCompletionStream(chat)),
  };
}

main(process.argv[2]).then((answer) => console.log(JSON.stringify(answer)));
