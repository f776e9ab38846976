import { ShapesBackend } from './backends/shapes/shapes-backend';
import { Device } from './device';
import type { DType, Shape } from './dtype';
import type { Tensor } from './tensor';

/** Stands for another device: takes the same ops, counts the bytes they would take there, and computes nothing. */
export class ShapesDevice extends Device {
  readonly #shapes: ShapesBackend;

  constructor(standsFor: Device) {
    const shapes = new ShapesBackend(standsFor.backend);
    super(shapes);
    this.#shapes = shapes;
  }

  /** A tensor without data. */
  shaped(shape: Shape, dtype: DType): Tensor {
    return this.adopt(this.#shapes.make(shape, dtype));
  }
}
