// The sum that a checksum is made of: a constant is added to each word, and neighbours are multiplied.
//
//     word   | w0 w1 | w2 w3 | ...      sum = (w0 + k0)(w1 + k1) + (w2 + k2)(w3 + k3) + ...   modulo 2^64
//
// Integers: any order gives the same, so each instruction set has its own.

uint64_t words_sum(const void* data, const uint32_t* keys, int64_t count) {
  const char* words = static_cast<const char*>(data);
#if defined(__AVX512F__)
  __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (int64_t i = 0; i < count; i += 32)
    for (int half = 0; half < 2; half++) {
      const __m512i x =
          _mm512_add_epi32(_mm512_loadu_si512(words + 4 * i + 64 * half), _mm512_loadu_si512(keys + i + 16 * half));
      sums[half] = _mm512_add_epi64(sums[half], _mm512_mul_epu32(x, _mm512_srli_epi64(x, 32)));
    }
  uint64_t parts[8];
  _mm512_storeu_si512(parts, _mm512_add_epi64(sums[0], sums[1]));
  constexpr int kParts = 8;
#elif defined(__AVX2__)
  __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int64_t i = 0; i < count; i += 16)
    for (int half = 0; half < 2; half++) {
      const auto load = [&](const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); };
      const __m256i x = _mm256_add_epi32(load(words + 4 * i + 32 * half), load(keys + i + 8 * half));
      sums[half] = _mm256_add_epi64(sums[half], _mm256_mul_epu32(x, _mm256_srli_epi64(x, 32)));
    }
  uint64_t parts[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(parts), _mm256_add_epi64(sums[0], sums[1]));
  constexpr int kParts = 4;
#else
  constexpr int kParts = 8;
  uint64_t parts[kParts] = {};
  for (int64_t i = 0; i < count; i += 2 * kParts) {
    uint32_t some[2 * kParts];
    __builtin_memcpy(some, words + 4 * i, sizeof some);
    for (int j = 0; j < kParts; j++) {
      const uint32_t low = some[2 * j] + keys[i + 2 * j], high = some[2 * j + 1] + keys[i + 2 * j + 1];
      parts[j] += uint64_t{low} * high;
    }
  }
#endif
  uint64_t all = 0;
  for (int j = 0; j < kParts; j++) all += parts[j];
  return all;
}
