import { RequestMethod, type Type } from '@nestjs/common';
import { METHOD_METADATA, PATH_METADATA } from '@nestjs/common/constants.js';
import { apiErrorSchema } from '@tunefleet/contracts';
import { invariant } from '@tunefleet/foundation';
import { operationOf, type OperationInfo } from '../http/operation';
import { VERSION } from '../version';
import { Components } from './components';

type Json = Readonly<Record<string, unknown>>;

export interface OpenApiDocument {
  readonly openapi: string;
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly paths: Record<string, Record<string, Json>>;
  readonly components: Json;
  readonly security: readonly Json[];
  readonly tags: readonly { readonly name: string }[];
}

/**
 * The API as OpenAPI 3.1, read off the controllers: paths from their routes, parameters and bodies from the schemas that check them.
 * @throws invariant for an endpoint without `@Operation`
 */
export function openApiDocument(controllers: readonly Type[]): OpenApiDocument {
  const components = new Components();
  const paths: OpenApiDocument['paths'] = {};
  const tags = new Set<string>();
  for (const controller of controllers) {
    for (const { method, path, name, info } of routesOf(controller)) {
      const tag = tagOf(path);
      tags.add(tag);
      (paths[path] ??= {})[method] = { operationId: `${controller.name.replace(/Controller$/, '')}.${name}`, tags: [tag], ...operationOf31(path, info, components) };
    }
  }
  components.schema(apiErrorSchema, 'output');
  return {
    openapi: '3.1.0',
    info: {
      title: 'Tunefleet',
      version: VERSION,
      description: 'Fine-tuning as a service on your own machines. What is below /v1 has the shapes of the OpenAI API; /api/v1 is our own. Errors have one shape everywhere.',
    },
    paths,
    components: { schemas: components.all(), securitySchemes: { apiKey: { type: 'http', scheme: 'bearer' } } },
    security: [{ apiKey: [] }],
    tags: [...tags].map((name) => ({ name })),
  };
}

interface Route {
  readonly method: string;
  readonly path: string;
  readonly name: string;
  readonly info: OperationInfo;
}

function routesOf(controller: Type): Route[] {
  const prefix = String(Reflect.getMetadata(PATH_METADATA, controller) ?? '');
  const prototype = controller.prototype as Readonly<Record<string, unknown>>;
  return Object.getOwnPropertyNames(prototype).flatMap((name) => {
    const handler = prototype[name];
    if (typeof handler !== 'function') return [];
    const method = Reflect.getMetadata(METHOD_METADATA, handler) as RequestMethod | undefined;
    if (method === undefined) return [];
    const info = operationOf(handler);
    invariant(info.summary !== undefined, `${controller.name}.${name} has no @Operation`);
    return [{ method: RequestMethod[method].toLowerCase(), path: pathOf(prefix, String(Reflect.getMetadata(PATH_METADATA, handler))), name, info }];
  });
}

/** `/a/:id` in OpenAPI's spelling; a wildcard is a name with slashes. */
function pathOf(prefix: string, path: string): string {
  const segments = `${prefix}/${path}`.split('/').filter((segment) => segment !== '');
  return `/${segments.map((segment) => segment.replace(/^:(\w+)$/, '{$1}').replace(/^\*$/, '{name}')).join('/')}`;
}

function tagOf(path: string): string {
  const [first = '', second = '', third = ''] = path.split('/').slice(1);
  if (first === 'v1') return second;
  return first === 'api' ? `native: ${third}` : 'health';
}

function operationOf31(path: string, info: OperationInfo, components: Components): Json {
  const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({ name, in: 'path', required: true, schema: { type: 'string' } }));
  const inQuery = info.query === undefined ? [] : queryParameters(components.schema(info.query, 'input'));
  const content = info.contentType ?? 'application/json';
  const schema = info.answer === undefined ? { type: content === 'application/json' ? 'object' : 'string' } : components.schema(info.answer, 'output');
  return {
    summary: info.summary,
    parameters: [...inPath, ...inQuery],
    ...requestBody(info, components),
    responses: {
      [info.status ?? 200]: { description: 'Success', content: { [content]: { schema } } },
      default: { description: 'Error', content: { 'application/json': { schema: components.schema(apiErrorSchema, 'output') } } },
    },
    ...(info.public === true ? { security: [] } : {}),
  };
}

function queryParameters(schema: Json): Json[] {
  const required = new Set((schema['required'] ?? []) as string[]);
  return Object.entries((schema['properties'] ?? {}) as Record<string, Json>).map(([name, property]) => ({
    name,
    in: 'query',
    required: required.has(name),
    schema: property,
    ...(name === 'metadata' ? { style: 'deepObject', explode: true } : {}),
  }));
}

function requestBody(info: OperationInfo, components: Components): Json {
  if (info.body !== undefined) return { requestBody: { required: true, content: { 'application/json': { schema: components.schema(info.body, 'input') } } } };
  if (info.multipart === undefined) return {};
  const fields = components.schema(info.multipart, 'input');
  const properties = { file: { type: 'string', format: 'binary' }, ...(fields['properties'] as Json) };
  const required = ['file', ...((fields['required'] ?? []) as string[])];
  return { requestBody: { required: true, content: { 'multipart/form-data': { schema: { ...fields, properties, required } } } } };
}
