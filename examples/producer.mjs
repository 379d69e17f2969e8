// Send the pictures of a folder to Roadstream with kafkajs, as JSON.
//
// npm install kafkajs
// node producer.mjs photos/ --servers 127.0.0.1:9092
//
// Node 22.2 or later, for crc32.

import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import { crc32 } from "node:zlib";
import { Kafka, logLevel } from "kafkajs";

const PICTURES = new Set([".jpg", ".jpeg", ".png", ".webp"]);
const AT_ONCE = 8;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    servers: { type: "string", default: "127.0.0.1:9092" },
    namespace: { type: "string" }, // of `roadstream up --namespace`
    lane: { type: "string", default: "archive" }, // or live
    deadline: { type: "string" }, // seconds in which a live answer is wanted
  },
});

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();

// The record of a picture, as `roadstream schema image` describes it; bytes are base64.
function image(uri, data) {
  const now = Date.now() / 1000;
  const head = {
    // The same place and picture have the same id: sent twice, they are answered once.
    image_id: sha256(uri, "\0", data).toString("hex").slice(0, 32),
    uri,
    lane: options.lane,
    submitted_at: now,
    deadline_at: options.deadline === undefined ? null : now + Number(options.deadline),
    content_hash: sha256(data).subarray(0, 16).toString("base64"),
  };
  return { schema: "image.v1", head, payload: { kind: "inline", data: data.toString("base64") } };
}

function message(record) {
  return {
    key: record.head.image_id,
    value: JSON.stringify(record),
    headers: { "content-type": "application/json", schema: "image.v1" },
  };
}

// CRC-32 of the key: with the image id as the key, as `roadstream produce` has it.
const createPartitioner = () => ({ partitionMetadata, message }) =>
  crc32(message.key) % partitionMetadata.length;

async function pictures(folder) {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  return found
    .filter((one) => one.isFile() && PICTURES.has(path.extname(one.name).toLowerCase()))
    .map((one) => path.join(one.parentPath, one.name))
    .sort();
}

async function send(producer, topic, file) {
  const record = image(file, await readFile(file));
  try {
    // Acknowledged by all in-sync replicas, tried again where Kafka does not answer.
    const [at] = await producer.send({ topic, acks: -1, messages: [message(record)] });
    console.log(`${record.head.image_id} ${topic}[${at.partition}]@${at.baseOffset}`);
    return true;
  } catch (error) {
    console.error(`${record.head.image_id}: ${error.message}`);
    return false;
  }
}

async function main(folder) {
  const files = await pictures(folder);
  const prefix = options.namespace === undefined ? "" : `${options.namespace}.`;
  const topic = `${prefix}images.${options.lane}`;
  const kafka = new Kafka({ brokers: options.servers.split(","), logLevel: logLevel.NOTHING });
  const producer = kafka.producer({ createPartitioner, allowAutoTopicCreation: false });
  await producer.connect();
  let sent = 0;
  for (let i = 0; i < files.length; i += AT_ONCE) {
    const some = files.slice(i, i + AT_ONCE).map((file) => send(producer, topic, file));
    sent += (await Promise.all(some)).filter(Boolean).length;
  }
  await producer.disconnect();
  console.error(`${sent} sent, ${files.length - sent} failed`);
  return sent === files.length ? 0 : 1;
}

try {
  process.exitCode = await main(positionals[0] ?? ".");
} catch (error) {
  console.error(error.message); // no such folder, or no Kafka
  process.exitCode = 1;
}
