import { invariant } from '@tunefleet/foundation';
import type { Norm, NormSite, ProjectionGroup } from '@tunefleet/ml-nn';
import { dequantise, frozenMatrix, quantisedMatrix, Tensor, tensorsOf, type Device, type FrozenMap, type FrozenMatrix, type OutputHead, type QuantisedWeights } from '@tunefleet/ml-tensor';
import type { LoadedWeight } from '../architecture';
import { projectionOf } from './describe';
import type { DeclaredProjection } from './weight-table';

/** Assembles a model's frozen parts from loaded tensors and keeps account of what the model will own. */
export class FrozenParts {
  /** Every tensor of the model once, for counting and disposal. */
  readonly owned: Tensor[] = [];
  /** In the order in which they were asked for. */
  readonly norms: Norm[] = [];

  /** @param weight gives up each loaded tensor once */
  constructor(
    private readonly device: Device,
    private readonly loaded: (name: string) => LoadedWeight,
  ) {}

  own(tensor: Tensor): Tensor {
    this.owned.push(tensor);
    return tensor;
  }

  tensor(name: string): Tensor {
    return this.own(this.weight(name));
  }

  norm(site: NormSite, epsilon: number): Norm {
    const norm = { ...site, epsilon, weight: this.normWeight(site), bias: site.biased ? this.tensor(`${site.path}.bias`) : null };
    this.norms.push(norm);
    return norm;
  }

  private normWeight({ path, centred }: NormSite): Tensor {
    const name = `${path}.weight`;
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
    return { ...this.matrix(this.weight(name), 'head'), softcap };
  }

  /** The embedding table [V, C] as the head; a second copy only where the device wants it the other way round. */
  tiedHead(table: Tensor, softcap: number | null): OutputHead {
    const [outSize, inSize] = [table.dim(0), table.dim(1)];
    if (this.device.backend.untransposedWeights !== 'all') return { value: table, layout: 'outIn', outSize, inSize, softcap };
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
    const weights = projections.map(({ path }) => this.loaded(`${path}.weight`));
    const quantised = weights.filter((weight) => !(weight instanceof Tensor)) as [QuantisedWeights, ...QuantisedWeights[]];
    if (quantised.length === weights.length) {
      for (const weight of quantised) for (const tensor of tensorsOf(weight)) this.own(tensor);
      return quantisedMatrix(quantised);
    }
    const whole = quantised.length === 0 ? (weights as Tensor[]) : weights.map((weight) => this.inFull(weight));
    if (!first?.fanInFanOut) return this.matrix(this.concatenated(whole));
    invariant(projections.length === 1, 'matrices stored as [in, out] are not stacked');
    return { value: this.own(whole[0] as Tensor), layout: 'inOut', outSize: first.outSize, inSize: first.inSize };
  }

  private matrix(tensor: Tensor, use: 'map' | 'head' = 'map'): FrozenMatrix {
    const result = frozenMatrix(this.device, tensor, use);
    this.own(result.value);
    return result;
  }

  /** Gives up a matrix for one in f32: some of a stack may be quantised while others are not. */
  private inFull(weight: LoadedWeight): Tensor {
    const tensors = weight instanceof Tensor ? [weight] : tensorsOf(weight);
    const whole = weight instanceof Tensor ? this.device.primitives.cast(weight, 'f32') : dequantise([weight]);
    for (const tensor of tensors) tensor.dispose();
    return whole;
  }

  private weight(name: string): Tensor {
    const weight = this.loaded(name);
    invariant(weight instanceof Tensor, `"${name}" is quantised, but it is no linear map`);
    return weight;
  }

  private stacked(names: readonly string[]): Tensor {
    return this.concatenated(names.map((name) => this.weight(name)));
  }

  private concatenated(parts: readonly Tensor[]): Tensor {
    const [only] = parts;
    if (parts.length === 1 && only) return only;
    const all = this.device.primitives.concat(parts, 0);
    for (const part of parts) part.dispose();
    return all;
  }
}
