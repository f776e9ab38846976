import type { INestApplication, Type } from '@nestjs/common';
import { SwaggerModule, type OpenAPIObject } from '@nestjs/swagger';
import { openApiDocument } from './document';

const PAGE = 'api/docs';
const JSON_PATH = 'api/openapi.json';

/** The API's page at `/api/docs`, everything it shows served from here, and its document at `/api/openapi.json`. */
export function serveDocs(app: INestApplication, controllers: readonly Type[]): void {
  const document = openApiDocument(controllers);
  SwaggerModule.setup(PAGE, app, document as unknown as OpenAPIObject, {
    jsonDocumentUrl: JSON_PATH,
    raw: ['json'],
    customSiteTitle: 'Tunefleet API',
    swaggerOptions: { persistAuthorization: true, docExpansion: 'none' },
  });
}
