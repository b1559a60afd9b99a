// The same request as a line for a shell, and as Python.
const LONGEST = 300;

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// config: as it is sent; text: what is spoken. A clip is shown shortened.
export function codeFor(config, text, hasKey) {
  const { stream_audio, split_granularity, carry, sample_rate, ...fields } = config;
  const body = { input: text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text, ...fields, response_format: "mp3" };
  if (body.ref_audio) body.ref_audio = "data:audio/wav;base64,...";
  const address = new URL("v1/", location.href).href;
  const curl = [`curl ${address}audio/speech`, "-H 'Content-Type: application/json'"];
  if (hasKey) curl.push('-H "Authorization: Bearer $KEY"');
  curl.push(`-d ${quote(JSON.stringify(body))}`, "-o speech.mp3");
  const { input, voice, instructions, response_format, model, ...extra } = body;
  const named = { model: model ?? "tts-1", voice: voice ?? "default", input, instructions, response_format };
  const given = Object.entries(named).filter(([, value]) => value !== undefined);
  const python = [
    "from openai import OpenAI",
    `client = OpenAI(base_url=${JSON.stringify(address)}, api_key=${hasKey ? "KEY" : '"none"'})`,
    "speech = client.audio.speech.create(",
    ...given.map(([name, value]) => `    ${name}=${JSON.stringify(value)},`),
    `    extra_body=${JSON.stringify(extra).replaceAll(":true", ":True").replaceAll(":false", ":False")},`,
    ")",
    'speech.write_to_file("speech.mp3")',
  ];
  return { curl: curl.join(" \\\n  "), python: python.join("\n") };
}
