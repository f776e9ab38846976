#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#ifdef __AVX2__
#include <immintrin.h>
#endif

// Eight lanes in GCC's and Clang's vector extension: AVX2 where it is compiled for, two NEON registers on ARM.
/** Before a loop over registers: an array of them is kept in memory unless its indices are constants. */
#define TUNEFLEET_UNROLL _Pragma("GCC unroll 8")
#define TUNEFLEET_INLINE __attribute__((always_inline)) inline

namespace tunefleet {

typedef float f32x8 __attribute__((vector_size(32)));
typedef int32_t i32x8 __attribute__((vector_size(32)));
typedef uint32_t u32x8 __attribute__((vector_size(32)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));

constexpr int kLanes = 8;
/** Floats of a cache line. */
constexpr int kLineFloats = 16;

inline f32x8 load(const float* from) {
  f32x8 value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/** bf16 is the upper half of an f32. */
inline f32x8 load(const uint16_t* from) {
#ifdef __AVX2__
  // GCC 12 makes five instructions of the line below.
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return reinterpret_cast<f32x8>(_mm256_slli_epi32(wide, 16));
#else
  u16x8 bits;
  std::memcpy(&bits, from, sizeof bits);
  return reinterpret_cast<f32x8>(__builtin_convertvector(bits, u32x8) << 16);
#endif
}

inline void store(float* to, f32x8 value) { std::memcpy(to, &value, sizeof value); }

/** Room for floats that begins at a cache line: a vector that crosses two costs two loads. What was in it is lost when it grows. */
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  float* of(int64_t count) {
    if (count > capacity_) {
      std::free(data_);
      void* room = nullptr;
      if (posix_memalign(&room, 64, count * sizeof(float)) != 0) throw std::bad_alloc();
      data_ = static_cast<float*>(room);
      capacity_ = count;
    }
    return data_;
  }

 private:
  float* data_ = nullptr;
  int64_t capacity_ = 0;
};

inline f32x8 all(float value) { return f32x8{value, value, value, value, value, value, value, value}; }

inline float widen(float value) { return value; }

inline float widen(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

/** rows[i][j] becomes rows[j][i] */
TUNEFLEET_INLINE void transpose(f32x8 (&rows)[kLanes]) {
#ifdef __AVX2__
  __m256 pairs[kLanes], quads[kLanes];
  TUNEFLEET_UNROLL
  for (int i = 0; i < kLanes; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(reinterpret_cast<__m256>(rows[i]), reinterpret_cast<__m256>(rows[i + 1]));
    pairs[i + 1] = _mm256_unpackhi_ps(reinterpret_cast<__m256>(rows[i]), reinterpret_cast<__m256>(rows[i + 1]));
  }
  TUNEFLEET_UNROLL
  for (int i = 0; i < kLanes; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
  TUNEFLEET_UNROLL
  for (int i = 0; i < kLanes / 2; ++i) {
    rows[i] = reinterpret_cast<f32x8>(_mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20));
    rows[i + 4] = reinterpret_cast<f32x8>(_mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31));
  }
#else
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float lower = rows[i][j];
      rows[i][j] = rows[j][i];
      rows[j][i] = lower;
    }
  }
#endif
}

/** Always in this order, so that sums do not depend on who asks. */
inline float sum(f32x8 v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

inline float maximum(f32x8 v) {
  float most = v[0];
  for (int i = 1; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

inline f32x8 max(f32x8 a, f32x8 b) { return a > b ? a : b; }
inline f32x8 min(f32x8 a, f32x8 b) { return a < b ? a : b; }

/**
 * e^x to 2 units in the last place, 0 below -87. NaN stays NaN.
 * Cody and Waite's reduction to [-ln 2 / 2, ln 2 / 2], a polynomial of degree 6 (Taylor's, its error there is below 2^-24), and 2^n by the exponent's bits.
 */
inline f32x8 exp(f32x8 x) {
  const f32x8 bounded = min(max(x, all(-87.3f)), all(88.7f));
  const f32x8 shifted = bounded * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  const f32x8 n = shifted - 12582912.0f;
  const f32x8 r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  f32x8 y = all(1.0f / 720);
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  const i32x8 exponent = (__builtin_convertvector(n, i32x8) + 127) << 23;
  const f32x8 scaled = y * reinterpret_cast<f32x8>(exponent);
  return x == x ? (x < -87.3f ? f32x8{} : scaled) : x;
}

/** Near 0 the polynomial of Cephes' tanhf, where the quotient would lose digits. */
inline f32x8 tanh(f32x8 x) {
  const f32x8 z = x * x;
  const f32x8 near = ((((-5.70498872745e-3f * z + 2.06390887954e-2f) * z - 5.37397155531e-2f) * z + 1.33314422036e-1f) * z - 3.33332819422e-1f) * z * x + x;
  const f32x8 far = 1.0f - 2.0f / (exp(2.0f * x) + 1.0f);
  return z < 0.390625f ? near : far;
}

inline f32x8 sigmoid(f32x8 x) { return 1.0f / (1.0f + exp(-x)); }

/** silu(gate) * up. Shazeer 2020, arXiv:2002.05202. */
inline f32x8 swiglu(f32x8 gate, f32x8 up) { return gate * sigmoid(gate) * up; }

/** The first `count` (< 8) elements, zeros behind. */
inline f32x8 load_some(const float* from, int count) {
  f32x8 value{};
  std::memcpy(&value, from, count * sizeof(float));
  return value;
}

inline void store_some(float* to, f32x8 value, int count) { std::memcpy(to, &value, count * sizeof(float)); }

/** Calls body(offset, load, store) so that whole vectors and the rest of a row are written once. */
template <typename Body>
inline void for_each_vector(int64_t count, Body&& body) {
  int64_t at = 0;
  for (; at + kLanes <= count; at += kLanes) body(at, kLanes);
  if (at < count) body(at, static_cast<int>(count - at));
}

inline f32x8 load_up_to(const float* from, int count) { return count == kLanes ? load(from) : load_some(from, count); }
inline void store_up_to(float* to, f32x8 value, int count) {
  if (count == kLanes) store(to, value);
  else store_some(to, value, count);
}

/** to[i] = e^(from[i] - most), the terms of a softmax; both may be one row. @returns their sum */
inline float exponentials(const float* from, int64_t count_of_row, float most, float* to) {
  f32x8 total{};
  for_each_vector(count_of_row, [&](int64_t at, int count) {
    f32x8 terms = exp(load_up_to(from + at, count) - most);
    for (int lane = count; lane < kLanes; ++lane) terms[lane] = 0;
    store_up_to(to + at, terms, count);
    total += terms;
  });
  return sum(total);
}

}  // namespace tunefleet
