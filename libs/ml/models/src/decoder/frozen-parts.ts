import { invariant } from '@tunefleet/foundation';
import type { ProjectionGroup } from '@tunefleet/ml-nn';
import { frozenMatrix, type Device, type FrozenMap, type FrozenMatrix, type OutputHead, type Tensor } from '@tunefleet/ml-tensor';
import { projectionOf } from './describe';
import type { DeclaredProjection } from './weight-table';

/** Assembles a model's frozen parts from loaded tensors and keeps account of what the model will own. */
export class FrozenParts {
  /** Every tensor of the model once, for counting and disposal. */
  readonly owned: Tensor[] = [];

  /** @param weight gives up each loaded tensor once */
  constructor(
    private readonly device: Device,
    private readonly weight: (name: string) => Tensor,
  ) {}

  own(tensor: Tensor): Tensor {
    this.owned.push(tensor);
    return tensor;
  }

  tensor(name: string): Tensor {
    return this.own(this.weight(name));
  }

  /** A norm's weight [C]. @param centred stored less one: it is made whole, in f32 */
  normWeight(name: string, centred: boolean): Tensor {
    if (!centred) return this.tensor(name);
    using stored = this.weight(name);
    return this.own(
      this.device.scope(() => {
        const p = this.device.primitives;
        return p.add(p.cast(stored, 'f32'), this.device.scalar(1, 'f32'));
      }),
    );
  }

  /** Linear maps of one input; those of an inner list are stacked into one matrix, one below the other. */
  group(...maps: readonly (readonly DeclaredProjection[])[]): ProjectionGroup {
    return {
      maps: maps.map((projections) => this.map(projections)),
      members: maps.flatMap((projections, map) => {
        let row = 0;
        return projections.map((projection) => {
          const member = { ...projectionOf(projection), map, row };
          row += projection.outSize;
          return member;
        });
      }),
    };
  }

  head(name: string, softcap: number | null): OutputHead {
    return { ...this.matrix(this.weight(name)), softcap };
  }

  /** The embedding table [V, C] as the head; a second copy only where the device wants it the other way round. */
  tiedHead(table: Tensor, softcap: number | null): OutputHead {
    const [outSize, inSize] = [table.dim(0), table.dim(1)];
    if (!this.device.backend.prefersUntransposedWeights) return { value: table, layout: 'outIn', outSize, inSize, softcap };
    return { value: this.own(this.device.primitives.transpose(table, [1, 0])), layout: 'inOut', outSize, inSize, softcap };
  }

  private map(projections: readonly DeclaredProjection[]): FrozenMap {
    const biased = projections.some(({ bias }) => bias);
    return {
      weight: this.mapWeight(projections),
      bias: biased ? this.own(this.stacked(projections.map(({ path }) => `${path}.bias`))) : null,
    };
  }

  private mapWeight(projections: readonly DeclaredProjection[]): FrozenMatrix {
    const [first] = projections;
    if (!first?.fanInFanOut) return this.matrix(this.stacked(projections.map(({ path }) => `${path}.weight`)));
    invariant(projections.length === 1, 'matrices stored as [in, out] are not stacked');
    return { value: this.tensor(`${first.path}.weight`), layout: 'inOut', outSize: first.outSize, inSize: first.inSize };
  }

  private matrix(tensor: Tensor): FrozenMatrix {
    const result = frozenMatrix(this.device, tensor);
    this.own(result.value);
    return result;
  }

  private stacked(names: readonly string[]): Tensor {
    const parts = names.map((name) => this.weight(name));
    const [only] = parts;
    if (parts.length === 1 && only) return only;
    const all = this.device.primitives.concat(parts, 0);
    for (const part of parts) part.dispose();
    return all;
  }
}
