// Sixteen float lanes in two 256-bit registers (AVX2 and FMA). The words are those of lanes_avx512.h.

constexpr int kMaxRows = 6;

// Column blocks beside `rows` rows: 16 registers, two for a block of lanes.
constexpr int max_blocks(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
constexpr int kPanelRows = 6;
constexpr int kGroupTileRows = 4, kGroupTileBlocks = 1;  // with quantised weights

struct Lanes {
  __m256 lo, hi;
};

inline Lanes zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Lanes all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Lanes x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
// All ones in lanes below n; n counts from the first of these eight lanes.
inline __m256i below(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Lanes load(const float* p, int n) {
  return {_mm256_maskload_ps(p, below(n)), n > 8 ? _mm256_maskload_ps(p + 8, below(n - 8)) : _mm256_setzero_ps()};
}
inline void store(float* p, Lanes x, int n) {
  _mm256_maskstore_ps(p, below(n), x.lo);
  if (n > 8) _mm256_maskstore_ps(p + 8, below(n - 8), x.hi);
}

inline Lanes operator+(Lanes a, Lanes b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Lanes maximum(Lanes a, Lanes b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline Lanes minimum(Lanes a, Lanes b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline Lanes root(Lanes a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
inline Lanes nearest(Lanes a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
inline __m256 sign_bits() { return _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MIN)); }
inline Lanes magnitude(Lanes a) { return {_mm256_andnot_ps(sign_bits(), a.lo), _mm256_andnot_ps(sign_bits(), a.hi)}; }
inline Lanes with_sign(Lanes a, Lanes b) {
  const Lanes size = magnitude(a);
  return {_mm256_or_ps(size.lo, _mm256_and_ps(sign_bits(), b.lo)),
          _mm256_or_ps(size.hi, _mm256_and_ps(sign_bits(), b.hi))};
}
inline Lanes where_less(Lanes a, Lanes b, Lanes x, Lanes y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline Lanes between(Lanes x, int from, int to, Lanes other) {
  const __m256i lo = _mm256_andnot_si256(below(from), below(to));
  const __m256i hi = _mm256_andnot_si256(below(from - 8), below(to - 8));
  return {_mm256_blendv_ps(other.lo, x.lo, _mm256_castsi256_ps(lo)),
          _mm256_blendv_ps(other.hi, x.hi, _mm256_castsi256_ps(hi))};
}
// 2^n as bits, for integral n in -127 .. 127 (-127 gives zero).
inline __m256 power(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
// In two steps, because 2^n itself may be out of range where the product is not.
inline __m256 scale_half(__m256 x, __m256 n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i part = _mm256_srai_epi32(whole, 1);
  return _mm256_mul_ps(_mm256_mul_ps(x, power(part)), power(_mm256_sub_epi32(whole, part)));
}
inline Lanes scale_by_power(Lanes x, Lanes n) { return {scale_half(x.lo, n.lo), scale_half(x.hi, n.hi)}; }

inline float tree_sum(Lanes x) {
  const __m256 eight = _mm256_add_ps(x.lo, x.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float tree_max(Lanes x) {
  const __m256 eight = _mm256_max_ps(x.lo, x.hi);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline __m256 widen_half(const uint16_t* p) {
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}
inline Lanes widen(const uint16_t* p) { return {widen_half(p), widen_half(p + 8)}; }

inline __m256i narrow_half(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
}
inline void narrow(uint16_t* p, Lanes x) {
  const __m256i mixed = _mm256_packus_epi32(narrow_half(x.lo), narrow_half(x.hi));  // halves of lo and hi in turn
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(mixed, 0xD8));
}

struct Pairs {
  Lanes even, odd;
};
using PairInput = float;
constexpr int kPairWords = 2;
inline Pairs load_pairs(const uint16_t* p) {
  const __m256i lo = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i hi = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))},
          {_mm256_castsi256_ps(_mm256_and_si256(lo, upper)), _mm256_castsi256_ps(_mm256_and_si256(hi, upper))}};
}
inline Pairs all_pairs(const PairInput* x) { return {all(x[0]), all(x[1])}; }
inline Lanes dot_pairs(Lanes sum, Pairs x, Pairs w) { return fma(x.odd, w.odd, fma(x.even, w.even, sum)); }

struct Ints {
  __m256i lo, hi;
};
inline Ints zero_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Ints all_ints(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline __m256i load_line(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline Ints load_ints(const int32_t* p) { return {load_line(p), load_line(p + 8)}; }
inline Lanes to_lanes(Ints x) { return {_mm256_cvtepi32_ps(x.lo), _mm256_cvtepi32_ps(x.hi)}; }
inline void store(int32_t* p, Ints x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.hi);
}

// In 16 bits, inputs 0 and 2 apart from 1 and 3: VPMADDUBSW would be shorter, but it saturates.
struct Quads {
  __m256i even_lo, even_hi, odd_lo, odd_hi;
};
struct QuadRow {
  __m256i even, odd;
};
using QuadInput = int32_t;
constexpr int kQuadBytes = 8;  // of four inputs, as all_quads reads them
inline Quads split_quads(__m256i lo, __m256i hi) {
  const __m256i mask = _mm256_set1_epi16(0x00FF);
  return {_mm256_and_si256(lo, mask), _mm256_and_si256(hi, mask), _mm256_srli_epi16(lo, 8), _mm256_srli_epi16(hi, 8)};
}
inline Quads load_quads(const uint8_t* p) { return split_quads(load_line(p), load_line(p + 32)); }
inline __m256i low_halves(__m256i x) { return _mm256_and_si256(x, _mm256_set1_epi8(0x0F)); }
inline Quads low_quads(const uint8_t* p) {
  return split_quads(low_halves(load_line(p)), low_halves(load_line(p + 32)));
}
inline Quads high_quads(const uint8_t* p) {
  return split_quads(low_halves(_mm256_srli_epi16(load_line(p), 4)),
                     low_halves(_mm256_srli_epi16(load_line(p + 32), 4)));
}
inline QuadRow all_quads(const QuadInput* x) { return {_mm256_set1_epi32(x[0]), _mm256_set1_epi32(x[1])}; }
inline __m256i dot_half(__m256i sum, __m256i even, __m256i odd, QuadRow x) {
  return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(even, x.even), _mm256_madd_epi16(odd, x.odd)));
}
inline Ints dot_quads(Ints sum, Quads w, QuadRow x) {
  return {dot_half(sum.lo, w.even_lo, w.odd_lo, x), dot_half(sum.hi, w.even_hi, w.odd_hi, x)};
}
inline void store_quads(QuadInput* out, Lanes x) {
  const __m256i order = _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7);
  const __m256i lo = _mm256_permutevar8x32_epi32(_mm256_cvtps_epi32(x.lo), order);
  const __m256i hi = _mm256_permutevar8x32_epi32(_mm256_cvtps_epi32(x.hi), order);
  const __m256i mixed = _mm256_packs_epi32(lo, hi);  // halves of lo and hi in turn
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permute4x64_epi64(mixed, 0xD8));
}

inline Lanes from_float16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline void to_float16(uint16_t* p, Lanes x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.lo, mode));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.hi, mode));
}
