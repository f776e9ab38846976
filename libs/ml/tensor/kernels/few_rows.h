#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "gemm.h"
#include "parallel.h"
#include "vectors.h"

/** Products of a few rows by dot products: weights are read once, as they lie, and each row of a result is the same bits whatever rows are beside it. */
namespace tunefleet::few_rows {

/**
 * Rows and outputs whose dot products are summed side by side: with the vectors they are made of as many as there are registers. A single row meets more
 * outputs, so that as much is under way at once.
 */
constexpr int kRows = 4;
constexpr int kOutputs = 3;
constexpr int kOutputsOfOneRow = 4;
/** Weights that are worth handing to another thread. */
constexpr int64_t kWeightsPerChunk = 1 << 14;
/** Rows that meet a group of outputs while both are in the cache. */
constexpr int64_t kRowsPerBlock = 64;

/** sums[r][o] = x_r . w_o, each summed in eight lanes from the first element to the last, whatever else is computed beside it. */
template <int Rows, int Outputs, typename Weight>
inline void dots(const float* x, const Weight* w, int64_t size, float (&sums)[Rows][Outputs]) {
  f32x8 lanes[Rows][Outputs];
  TUNEFLEET_UNROLL
  for (int r = 0; r < Rows; ++r) {
    TUNEFLEET_UNROLL
    for (int o = 0; o < Outputs; ++o) lanes[r][o] = f32x8{};
  }
  int64_t at = 0;
  for (; at + kLanes <= size; at += kLanes) {
    f32x8 weights[Outputs];
    TUNEFLEET_UNROLL
    for (int o = 0; o < Outputs; ++o) {
      weights[o] = load(w + o * size + at);
      // A row is too short for the processor to see that the next ones follow.
      __builtin_prefetch(w + (o + Outputs) * size + at);
    }
    TUNEFLEET_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const f32x8 inputs = load(x + r * size + at);
      TUNEFLEET_UNROLL
      for (int o = 0; o < Outputs; ++o) lanes[r][o] += inputs * weights[o];
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int o = 0; o < Outputs; ++o) {
      float total = sum(lanes[r][o]);
      for (int64_t i = at; i < size; ++i) total += x[r * size + i] * widen(w[o * size + i]);
      sums[r][o] = total;
    }
  }
}

template <typename Pointer>
using WeightOf = std::remove_cv_t<std::remove_pointer_t<Pointer>>;

/** A product and what is added to it. */
template <typename Weight>
struct Plain {
  const Product& p;
  const Weight* w;

  template <int Rows, int Outputs>
  void finish(int64_t row, int64_t output, int64_t skipped) const {
    float sums[Rows][Outputs];
    dots(p.x + row * p.in, w + skipped * p.in, p.in, sums);
    for (int r = 0; r < Rows; ++r) {
      for (int o = 0; o < Outputs; ++o) {
        const int64_t at = (row + r) * p.out + output + o;
        float value = sums[r][o];
        if (p.bias) value += p.bias[output + o];
        for (int64_t i = 0; i < p.rank; ++i) value += p.narrow[(row + r) * p.rank + i] * p.update[i * p.out + output + o];
        if (p.residual) value += p.residual[at];
        p.y[at] = value;
      }
    }
  }
};

/** Two products, one under silu, times each other. */
template <typename GateWeight, typename UpWeight>
struct Gated {
  const Product& p;
  const GateWeight* gate;
  const UpWeight* up;

  template <int Rows, int Outputs>
  void finish(int64_t row, int64_t output, int64_t skipped) const {
    float gates[Rows][Outputs], ups[Rows][Outputs];
    dots(p.x + row * p.in, gate + skipped * p.in, p.in, gates);
    dots(p.x + row * p.in, up + skipped * p.in, p.in, ups);
    for (int r = 0; r < Rows; ++r) store_some(p.y + (row + r) * p.out + output, swiglu(load_some(gates[r], Outputs), load_some(ups[r], Outputs)), Outputs);
  }
};

/** The outputs from `output` on, `skipped` of those whose weights are at hand being done. */
template <int Outputs, typename Block>
void some_rows(const Block& block, int64_t row, int64_t last_row, int64_t output, int64_t skipped) {
  for (; row + kRows <= last_row; row += kRows) block.template finish<kRows, Outputs>(row, output, skipped);
  for (; row < last_row; ++row) block.template finish<1, Outputs>(row, output, skipped);
}

/**
 * Block by block of rows, so that a few outputs of many rows read each row once.
 * @param block_of called with (output, count, scratch) gives what finishes some outputs; scratch takes the weights of `Matrices` times so many
 */
template <int Outputs, int Matrices, typename BlockOf>
void by_outputs(const Product& p, BlockOf&& block_of) {
  const int64_t groups = (p.out + Outputs - 1) / Outputs;
  const int64_t blocks = (p.rows + kRowsPerBlock - 1) / kRowsPerBlock;
  parallel_ranges(blocks * groups, std::max<int64_t>(1, kWeightsPerChunk / (Matrices * Outputs * p.in)), [&](int64_t begin, int64_t end) {
    static thread_local Scratch own;
    float* const scratch = own.of(Matrices * Outputs * p.in);
    for (int64_t at = begin; at < end; ++at) {
      const int64_t row = at / groups * kRowsPerBlock;
      const int64_t last_row = std::min(p.rows, row + kRowsPerBlock);
      const int64_t output = at % groups * Outputs;
      const int64_t count = std::min<int64_t>(Outputs, p.out - output);
      const auto block = block_of(output, count, scratch);
      if (count == Outputs) some_rows<Outputs>(block, row, last_row, output, 0);
      else for (int64_t o = 0; o < count; ++o) some_rows<1>(block, row, last_row, output + o, o);
    }
  });
}

template <int Matrices, typename BlockOf>
void by_rows(const Product& p, BlockOf&& block_of) {
  if (p.rows == 1) by_outputs<kOutputsOfOneRow, Matrices>(p, block_of);
  else by_outputs<kOutputs, Matrices>(p, block_of);
}

/** Calls body(source) with what gives the weights of some outputs, see `multiply`: as they lie, or bf16 widened once where several groups of rows meet them. @param weights [out, in] */
template <typename Weight, typename Body>
void with_rows_of(const Weight* weights, const Product& p, Body&& body) {
  const int64_t in = p.in;
  if (sizeof(Weight) == sizeof(float) || p.rows <= kRows) return body([=](int64_t output, int64_t, float*) { return weights + output * in; });
  body([=](int64_t output, int64_t count, float* scratch) {
    const Weight* from = weights + output * in;
    for_each_vector(count * in, [&](int64_t at, int lanes) {
      __builtin_prefetch(from + count * in + at);
      if (lanes == kLanes) store(scratch + at, load(from + at));
      else for (int lane = 0; lane < lanes; ++lane) scratch[at + lane] = widen(from[at + lane]);
    });
    return static_cast<const float*>(scratch);
  });
}

/** @param weights_of called with (output, count, scratch) gives the weights of some outputs, in place or written to scratch */
template <typename Source>
void multiply(const Product& p, Source&& weights_of) {
  by_rows<1>(p, [&](int64_t output, int64_t count, float* scratch) {
    const auto* w = weights_of(output, count, scratch);
    return Plain<WeightOf<decltype(w)>>{p, w};
  });
}

/** silu(x Gᵀ) * (x Uᵀ). @param gate_of as `weights_of`   @param up_of alike */
template <typename GateSource, typename UpSource>
void multiply_gated(const Product& p, GateSource&& gate_of, UpSource&& up_of) {
  by_rows<2>(p, [&](int64_t output, int64_t count, float* scratch) {
    const auto* gate = gate_of(output, count, scratch);
    const auto* up = up_of(output, count, scratch + count * p.in);
    return Gated<WeightOf<decltype(gate)>, WeightOf<decltype(up)>>{p, gate, up};
  });
}

}  // namespace tunefleet::few_rows
