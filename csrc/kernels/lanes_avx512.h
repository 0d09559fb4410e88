// Sixteen float lanes in one 512-bit register (AVX-512 F, BW, DQ, VL; BF16 and VNNI if the unit is compiled for them).
//
// The vocabulary every kernel is written in; lanes_avx2.h and lanes_portable.h give the same words. A comparison
// keeps its second operand when either is NaN, as the hardware does, so that clamping lets a NaN through.
// Included inside an anonymous namespace, once for each instruction set: nothing here may have a linker name.

constexpr int kMaxRows = 8;  // rows of the largest register tile

// Column blocks beside `rows` rows: accumulators, weights and one broadcast must fit 32 registers.
constexpr int max_blocks(int rows) { return rows <= 2 ? 8 : rows <= 6 ? 4 : 2; }
constexpr int kPanelRows = 6;  // the tile of long inputs: 6 x 4 accumulators
constexpr int kGroupTileRows = 6, kGroupTileBlocks = 2;  // with quantised weights: as many integer sums as float ones

struct Lanes {
  __m512 r;
};

inline Lanes zero() { return {_mm512_setzero_ps()}; }
inline Lanes all(float x) { return {_mm512_set1_ps(x)}; }
inline Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Lanes x) { _mm512_storeu_ps(p, x.r); }
inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
inline Lanes load(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
inline void store(float* p, Lanes x, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), x.r); }

inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.r, b.r)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.r, b.r)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.r, b.r)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.r, b.r)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.r, b.r, c.r)}; }
inline Lanes maximum(Lanes a, Lanes b) { return {_mm512_max_ps(a.r, b.r)}; }
inline Lanes minimum(Lanes a, Lanes b) { return {_mm512_min_ps(a.r, b.r)}; }
inline Lanes root(Lanes a) { return {_mm512_sqrt_ps(a.r)}; }
inline Lanes nearest(Lanes a) { return {_mm512_roundscale_ps(a.r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Lanes magnitude(Lanes a) { return {_mm512_abs_ps(a.r)}; }
// |a| with the sign of b.
inline Lanes with_sign(Lanes a, Lanes b) {
  const __m512i sign = _mm512_set1_epi32(INT32_MIN);
  return {
      _mm512_castsi512_ps(_mm512_ternarylogic_epi32(sign, _mm512_castps_si512(b.r), _mm512_castps_si512(a.r), 0xCA))};
}
// a < b ? x : y, lane by lane.
inline Lanes where_less(Lanes a, Lanes b, Lanes x, Lanes y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.r, b.r, _CMP_LT_OQ), y.r, x.r)};
}
// Lanes from .. to - 1 of x, `other` elsewhere.
inline Lanes between(Lanes x, int from, int to, Lanes other) {
  const __mmask16 keep = static_cast<__mmask16>(first_lanes(to) & ~first_lanes(from));
  return {_mm512_mask_blend_ps(keep, other.r, x.r)};
}
// x * 2^n for integral n in -254 .. 254.
inline Lanes scale_by_power(Lanes x, Lanes n) { return {_mm512_scalef_ps(x.r, n.r)}; }

// Sixteen lanes into one, always as the same tree: lane i with i + 8, then + 4, + 2, + 1.
inline float tree_sum(Lanes x) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.r), _mm512_extractf32x8_ps(x.r, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float tree_max(Lanes x) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x.r), _mm512_extractf32x8_ps(x.r, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// Sixteen bfloat16 -> float, exactly.
inline Lanes widen(const uint16_t* p) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))};
}

#ifdef __AVX512BF16__
inline void narrow(uint16_t* p, Lanes x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x.r));
}
#else
// To the nearest bfloat16, ties to even; a NaN stays a NaN.
inline void narrow(uint16_t* p, Lanes x) {
  const __m512i bits = _mm512_castps_si512(x.r);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(x.r, x.r, _CMP_UNORD_Q);
  const __m512i out = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, up, quiet), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(out));
}
#endif

// Thirty-two bfloat16: a pair of inputs for each of sixteen outputs, as the packed layout has them.
#ifdef __AVX512BF16__
struct Pairs {
  __m512bh r;
};
using PairInput = uint32_t;  // two bfloat16, the first in the low half
constexpr int kPairWords = 1;
inline Pairs load_pairs(const uint16_t* p) { return {(__m512bh)_mm512_loadu_si512(p)}; }
inline Pairs all_pairs(const PairInput* x) { return {(__m512bh)_mm512_set1_epi32(static_cast<int>(*x))}; }
inline Lanes dot_pairs(Lanes sum, Pairs x, Pairs w) { return {_mm512_dpbf16_ps(sum.r, x.r, w.r)}; }
#else
struct Pairs {
  Lanes even, odd;
};
using PairInput = float;  // two floats that a bfloat16 can hold
constexpr int kPairWords = 2;
inline Pairs load_pairs(const uint16_t* p) {
  const __m512i bits = _mm512_loadu_si512(p);
  return {{_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))},
          {_mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))))}};
}
inline Pairs all_pairs(const PairInput* x) { return {all(x[0]), all(x[1])}; }
inline Lanes dot_pairs(Lanes sum, Pairs x, Pairs w) { return fma(x.odd, w.odd, fma(x.even, w.even, sum)); }
#endif

struct Ints {
  __m512i r;
};
inline Ints zero_ints() { return {_mm512_setzero_si512()}; }
inline Ints all_ints(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline Ints load_ints(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Lanes to_lanes(Ints x) { return {_mm512_cvtepi32_ps(x.r)}; }
inline void store(int32_t* p, Ints x) { _mm512_storeu_si512(p, x.r); }

// One line of 64 unsigned codes: four inputs for each of sixteen outputs. dot_quads adds, output by output, the four
// products with four signed inputs: exactly, in integers, so that their order does not matter.
#ifdef __AVX512VNNI__
struct Quads {
  __m512i r;
};
using QuadRow = Quads;
using QuadInput = int32_t;
constexpr int kQuadBytes = 4;  // of four inputs, as all_quads reads them
inline Quads load_quads(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
// The two lines that one line of 4-bit codes holds: its low halves, its high halves.
inline Quads low_quads(const uint8_t* p) {
  return {_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(0x0F))};
}
inline Quads high_quads(const uint8_t* p) {
  return {_mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(p), 4), _mm512_set1_epi8(0x0F))};
}
inline QuadRow all_quads(const QuadInput* x) { return {_mm512_set1_epi32(*x)}; }
// In assembly: of the intrinsic some compilers make copies of every sum, in every step.
inline Ints dot_quads(Ints sum, Quads w, QuadRow x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.r) : "v"(w.r), "v"(x.r));
  return sum;
}
// Sixteen integral lanes in -128 .. 127 -> four inputs of all_quads.
inline void store_quads(QuadInput* out, Lanes x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.r)));
}
#else
// In 16 bits, inputs 0 and 2 apart from 1 and 3: VPMADDUBSW would be shorter, but it saturates.
struct Quads {
  __m512i even, odd;
};
using QuadRow = Quads;
using QuadInput = int32_t;
constexpr int kQuadBytes = 8;  // of four inputs, as all_quads reads them
inline Quads split_quads(__m512i codes) {
  return {_mm512_and_si512(codes, _mm512_set1_epi16(0x00FF)), _mm512_srli_epi16(codes, 8)};
}
inline Quads load_quads(const uint8_t* p) { return split_quads(_mm512_loadu_si512(p)); }
inline Quads low_quads(const uint8_t* p) {
  return split_quads(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(0x0F)));
}
inline Quads high_quads(const uint8_t* p) {
  return split_quads(_mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(p), 4), _mm512_set1_epi8(0x0F)));
}
inline QuadRow all_quads(const QuadInput* x) { return {_mm512_set1_epi32(x[0]), _mm512_set1_epi32(x[1])}; }
inline Ints dot_quads(Ints sum, Quads w, QuadRow x) {
  const __m512i two = _mm512_add_epi32(_mm512_madd_epi16(w.even, x.even), _mm512_madd_epi16(w.odd, x.odd));
  return {_mm512_add_epi32(sum.r, two)};
}
// Sixteen integral lanes in -128 .. 127 -> four inputs of all_quads: (0, 2), (1, 3) of every four.
inline void store_quads(QuadInput* out, Lanes x) {
  const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
  const __m512i codes = _mm512_permutexvar_epi32(order, _mm512_cvtps_epi32(x.r));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(codes));
}
#endif

// Sixteen float16 -> float, exactly, and back to the nearest.
inline Lanes from_float16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void to_float16(uint16_t* p, Lanes x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x.r, mode));
}
