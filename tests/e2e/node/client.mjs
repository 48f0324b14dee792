// The OpenAI package for Node against the gateway: node client.mjs BASE_URL API_KEY
// Prints one JSON object with what each call gave; the Python test judges it.
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const model = "mock-model";
const messages = [{ role: "user", content: "Say something short." }];

async function collect(stream, pick) {
  const out = { chunks: 0, text: "", finish: null };
  for await (const chunk of stream) {
    out.chunks += 1;
    const choice = chunk.choices[0];
    if (choice === undefined) continue;
    out.text += pick(choice) ?? "";
    out.finish = choice.finish_reason ?? out.finish;
  }
  return out;
}

async function refused() {
  const stranger = new OpenAI({ baseURL, apiKey: "not-the-key", maxRetries: 0 });
  try {
    await stranger.chat.completions.create({ model, messages });
    return "accepted";
  } catch (err) {
    return { name: err.constructor.name, status: err.status, code: err.code };
  }
}

async function stoppedEarly() {
  const stream = await client.chat.completions.create(
    { model, messages, max_tokens: 2000, stream: true });
  let seen = 0;
  for await (const _ of stream) {
    seen += 1;
    if (seen === 3) break;
  }
  return seen;
}

const result = {};
const chat = await client.chat.completions.create({ model, messages });
result.chat = { role: chat.choices[0].message.role, text: chat.choices[0].message.content,
  usage: chat.usage };
result.chatStream = await collect(
  await client.chat.completions.create({ model, messages, stream: true }),
  (choice) => choice.delta.content);
const completion = await client.completions.create({ model, prompt: "Once" });
result.completion = { text: completion.choices[0].text };
result.completionStream = await collect(
  await client.completions.create({ model, prompt: "Once", stream: true }),
  (choice) => choice.text);
const embeddings = await client.embeddings.create(
  { model, input: ["a", "b"], encoding_format: "float" });
result.embeddings = embeddings.data.map((item) => item.embedding.length);
result.models = (await client.models.list()).data.map((item) => item.id);
result.parallel = (await Promise.all(Array.from({ length: 32 }, (_, i) =>
  client.chat.completions.create(
    { model, messages: [{ role: "user", content: `number ${i}` }] }))))
  .filter((answer) => answer.choices[0].message.content.length > 0).length;
result.refused = await refused();
result.stoppedEarly = await stoppedEarly();
console.log(JSON.stringify(result));
