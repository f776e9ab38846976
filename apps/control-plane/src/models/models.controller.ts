import { Controller, Delete, Get, Inject, Param } from '@nestjs/common';
import { apiModelSchema, modelDeletedSchema, modelListSchema, type ApiModel } from '@tunefleet/contracts';
import type { TeamRecord } from '@tunefleet/ports';
import { Caller } from '../http/api-key.guard';
import { Operation } from '../http/operation';
import { ModelsService } from './models.service';

/** Names hold slashes and colons, escaped or not: the rest of the path is the name. */
@Controller('v1/models')
export class ModelsController {
  constructor(@Inject(ModelsService) private readonly models: ModelsService) {}

  @Get()
  @Operation('Base models and tuned ones', { answer: modelListSchema })
  async list(@Caller() team: TeamRecord) {
    return { object: 'list' as const, data: await this.models.list(team) };
  }

  @Get('*')
  @Operation('One model', { answer: apiModelSchema })
  get(@Caller() team: TeamRecord, @Param('*') name: string): Promise<ApiModel> {
    return this.models.get(team, name);
  }

  @Delete('*')
  @Operation('Delete a tuned model', { answer: modelDeletedSchema })
  async delete(@Caller() team: TeamRecord, @Param('*') name: string) {
    await this.models.delete(team, name);
    return { id: name, object: 'model' as const, deleted: true as const };
  }
}
