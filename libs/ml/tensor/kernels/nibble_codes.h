#pragma once

#include <cstdint>

#include "vectors.h"

namespace tunefleet {

/** What the two halves of a byte stand for where both have the same sixteen codes, as NF4 and FP4: then registers hold the table. */
class NibbleCodes {
 public:
  /** @param table [256, 2]: of every byte the upper half's code and the lower half's */
  explicit NibbleCodes(const float* table) {
    for (int code = 0; code < 16; ++code) codes_[code] = table[2 * code + 1];
    for (int byte = 0; byte < 256; ++byte) are_nibbles_ = are_nibbles_ && same(table[2 * byte], codes_[byte >> 4]) && same(table[2 * byte + 1], codes_[byte & 15]);
  }

  bool are_nibbles() const { return are_nibbles_; }

  /** The codes of eight bytes, in order. */
  void sixteen(const uint8_t* bytes, f32x8& first, f32x8& second) const {
#ifdef __AVX2__
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
    const __m256 upper = look_up(_mm256_srli_epi32(wide, 4));
    const __m256 lower = look_up(_mm256_and_si256(wide, _mm256_set1_epi32(15)));
    const __m256 even = _mm256_unpacklo_ps(upper, lower);  // bytes 0, 1 and 4, 5
    const __m256 odd = _mm256_unpackhi_ps(upper, lower);   // bytes 2, 3 and 6, 7
    first = reinterpret_cast<f32x8>(_mm256_permute2f128_ps(even, odd, 0x20));
    second = reinterpret_cast<f32x8>(_mm256_permute2f128_ps(even, odd, 0x31));
#else
    for (int i = 0; i < kLanes; ++i) {
      f32x8& half = i < kLanes / 2 ? first : second;
      half[2 * i % kLanes] = codes_[bytes[i] >> 4];
      half[2 * i % kLanes + 1] = codes_[bytes[i] & 15];
    }
#endif
  }

 private:
  static bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

#ifdef __AVX2__
  /** Of indices below 16. */
  __m256 look_up(__m256i index) const {
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(codes_), index);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(codes_ + kLanes), index);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
#endif

  float codes_[16];
  bool are_nibbles_ = true;
};

}  // namespace tunefleet
