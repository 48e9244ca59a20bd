// Embeddings by openai-node, which asks for base64 and decodes it unless told otherwise. Argument: URL.
const OpenAI = require("openai");

const input = ["What is deep learning?", "It is a way of learning.", "x"];

async function main(url) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "-", maxRetries: 0 });
  return {
    texts: await client.embeddings.create({ model: "tgi", input }),
    floats: await client.embeddings.create({ model: "tgi", input, encoding_format: "float" }),
    short: await client.embeddings.create({ model: "tgi", input: input[0], dimensions: 8 }),
  };
}

main(process.argv[2]).then((answer) => console.log(JSON.stringify(answer)));
