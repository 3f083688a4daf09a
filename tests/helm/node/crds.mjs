// Objects of cert-manager and of the Prometheus operator, judged by their schemas. Reads a JSON array, prints one line for
// each mistake. The argument is the directory with node_modules. Kinds that it does not know are mistakes as well.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const PACKAGES = {
  "cert-manager.io/v1": "@kubernetes-models/cert-manager",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator",
};

const directory = process.argv[2];
const objects = JSON.parse(readFileSync(0, "utf8"));
const known = new Map();
for (const object of objects) {
  const name = `${object.kind}/${object.metadata.name}`;
  const unread = new Set();
  try {
    const model = await modelOf(object);
    // Not of a value of the model, which would be a copy.
    model.prototype.validate.call(watched(object, "", unread));
  } catch (error) {
    console.log(`${name}: ${error.message}`);
  }
  for (const path of unread) console.log(`${name}: ${path}: no such field`);
}

async function modelOf({ apiVersion, kind }) {
  const key = `${apiVersion}/${kind}`;
  if (!known.has(key)) {
    const at = PACKAGES[apiVersion];
    if (!at) throw new Error(`no schema is known for ${key}`);
    const file = join(directory, "node_modules", at, apiVersion, `${kind}.js`);
    known.set(key, (await import(pathToFileURL(file).href))[kind]);
  }
  return known.get(key);
}

// The validators pass over fields that they do not know. What nobody has read is such a field.
function watched(value, path, unread) {
  if (typeof value !== "object" || value === null) return value;
  const copy = Array.isArray(value) ? [] : {};
  for (const [key, inner] of Object.entries(value)) {
    const here = path ? `${path}.${key}` : key;
    copy[key] = watched(inner, here, unread);
    if (here !== "apiVersion" && here !== "kind") unread.add(here);
  }
  return new Proxy(copy, {
    get(target, key) {
      if (typeof key === "string") unread.delete(path ? `${path}.${key}` : key);
      return target[key];
    },
  });
}
