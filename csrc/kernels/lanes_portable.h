// Sixteen float lanes in four vectors of four, for any processor that GCC or Clang compiles for.
//
// The words are those of lanes_avx512.h. fma() here is a product and then a sum, each rounded: a fused one would need
// an instruction that not every processor has, and the order of roundings is part of the contract.

#if !defined(__GNUC__)
#error "openwork's portable kernels use the vector extensions of GCC and Clang; please build with one of them."
#endif

constexpr int kMaxRows = 3;
constexpr int max_blocks(int rows) { return rows == 1 ? 2 : 1; }
constexpr int kPanelRows = 3;
constexpr int kGroupTileRows = 2, kGroupTileBlocks = 1;  // with quantised weights

typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourInts __attribute__((vector_size(16)));

struct Lanes {
  Four a, b, c, d;
};

inline Four four(float x) { return Four{x, x, x, x}; }
inline Four load_four(const float* p) {
  Four x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
inline void store_four(float* p, Four x) { __builtin_memcpy(p, &x, sizeof x); }

inline Lanes all(float x) { return {four(x), four(x), four(x), four(x)}; }
inline Lanes zero() { return all(0.0f); }
inline Lanes load(const float* p) { return {load_four(p), load_four(p + 4), load_four(p + 8), load_four(p + 12)}; }
inline void store(float* p, Lanes x) {
  store_four(p, x.a);
  store_four(p + 4, x.b);
  store_four(p + 8, x.c);
  store_four(p + 12, x.d);
}
inline Lanes load(const float* p, int n) {
  float whole[16] = {};
  for (int i = 0; i < n; i++) whole[i] = p[i];
  return load(whole);
}
inline void store(float* p, Lanes x, int n) {
  float whole[16];
  store(whole, x);
  for (int i = 0; i < n; i++) p[i] = whole[i];
}

inline Lanes operator+(Lanes x, Lanes y) { return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d}; }
inline Lanes operator-(Lanes x, Lanes y) { return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d}; }
inline Lanes operator*(Lanes x, Lanes y) { return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d}; }
inline Lanes operator/(Lanes x, Lanes y) { return {x.a / y.a, x.b / y.b, x.c / y.c, x.d / y.d}; }
inline Lanes fma(Lanes x, Lanes y, Lanes z) { return x * y + z; }

// mask has all bits of a lane set, or none: where it is set x, elsewhere y.
inline Four pick(FourInts mask, Four x, Four y) { return (Four)(((FourInts)x & mask) | ((FourInts)y & ~mask)); }
inline Lanes maximum(Lanes x, Lanes y) {
  return {pick(x.a > y.a, x.a, y.a), pick(x.b > y.b, x.b, y.b), pick(x.c > y.c, x.c, y.c), pick(x.d > y.d, x.d, y.d)};
}
inline Lanes minimum(Lanes x, Lanes y) {
  return {pick(x.a < y.a, x.a, y.a), pick(x.b < y.b, x.b, y.b), pick(x.c < y.c, x.c, y.c), pick(x.d < y.d, x.d, y.d)};
}
inline Lanes where_less(Lanes p, Lanes q, Lanes x, Lanes y) {
  return {pick(p.a < q.a, x.a, y.a), pick(p.b < q.b, x.b, y.b), pick(p.c < q.c, x.c, y.c), pick(p.d < q.d, x.d, y.d)};
}
inline Four root_four(Four x) {
  return Four{__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]), __builtin_sqrtf(x[3])};
}
inline Lanes root(Lanes x) { return {root_four(x.a), root_four(x.b), root_four(x.c), root_four(x.d)}; }
// Adding and taking away 1.5 * 2^23 leaves the nearest integer, ties to even, for |x| < 2^22.
inline Lanes nearest(Lanes x) {
  const Lanes big = all(12582912.0f);
  return (x + big) - big;
}
inline Four bits_and(Four x, int32_t mask) { return (Four)((FourInts)x & FourInts{mask, mask, mask, mask}); }
inline Lanes magnitude(Lanes x) {
  return {bits_and(x.a, INT32_MAX), bits_and(x.b, INT32_MAX), bits_and(x.c, INT32_MAX), bits_and(x.d, INT32_MAX)};
}
inline Four sign_four(Four x, Four y) {
  return (Four)((FourInts)bits_and(x, INT32_MAX) | (FourInts)bits_and(y, INT32_MIN));
}
inline Lanes with_sign(Lanes x, Lanes y) {
  return {sign_four(x.a, y.a), sign_four(x.b, y.b), sign_four(x.c, y.c), sign_four(x.d, y.d)};
}
inline Lanes between(Lanes x, int from, int to, Lanes other) {
  float kept[16], out[16];
  store(kept, x);
  store(out, other);
  for (int i = from; i < to; i++) out[i] = kept[i];
  return load(out);
}
// 2^n for integral n in -127 .. 127 (-127 gives zero).
inline Four power(FourInts n) { return (Four)((n + 127) << 23); }
// In two steps, because 2^n itself may be out of range where the product is not.
inline Four scale_four(Four x, Four n) {
  const FourInts whole = __builtin_convertvector(n, FourInts);
  const FourInts part = whole >> 1;
  return x * power(part) * power(whole - part);
}
inline Lanes scale_by_power(Lanes x, Lanes n) {
  return {scale_four(x.a, n.a), scale_four(x.b, n.b), scale_four(x.c, n.c), scale_four(x.d, n.d)};
}

inline float tree_sum(Lanes x) {
  const Four four = (x.a + x.c) + (x.b + x.d);
  return (four[0] + four[2]) + (four[1] + four[3]);
}
inline float tree_max(Lanes x) {
  const Four left = pick(x.a > x.c, x.a, x.c), right = pick(x.b > x.d, x.b, x.d);
  const Four four = pick(left > right, left, right);
  const float even = four[0] > four[2] ? four[0] : four[2], odd = four[1] > four[3] ? four[1] : four[3];
  return even > odd ? even : odd;
}

inline Four widen_four(const uint16_t* p) {
  const FourInts bits = {p[0], p[1], p[2], p[3]};
  return (Four)(bits << 16);
}
inline Lanes widen(const uint16_t* p) {
  return {widen_four(p), widen_four(p + 4), widen_four(p + 8), widen_four(p + 12)};
}
inline void narrow(uint16_t* p, Lanes x) {
  float value[16];
  store(value, x);
  for (int i = 0; i < 16; i++) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value[i], sizeof bits);
    const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    p[i] = static_cast<uint16_t>((nan ? bits | 0x400000u : bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
  }
}

struct Pairs {
  Lanes even, odd;
};
using PairInput = float;
constexpr int kPairWords = 2;
inline FourInts four_ints(const void* p) {
  FourInts x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
inline Four low_half(const uint16_t* p) { return (Four)(four_ints(p) << 16); }
inline Four high_half(const uint16_t* p) { return bits_and((Four)four_ints(p), static_cast<int32_t>(0xFFFF0000u)); }
inline Pairs load_pairs(const uint16_t* p) {
  return {{low_half(p), low_half(p + 8), low_half(p + 16), low_half(p + 24)},
          {high_half(p), high_half(p + 8), high_half(p + 16), high_half(p + 24)}};
}
inline Pairs all_pairs(const PairInput* x) { return {all(x[0]), all(x[1])}; }
inline Lanes dot_pairs(Lanes sum, Pairs x, Pairs w) { return fma(x.odd, w.odd, fma(x.even, w.even, sum)); }

struct Ints {
  FourInts a, b, c, d;
};
inline Ints all_ints(int32_t x) {
  const FourInts four = {x, x, x, x};
  return {four, four, four, four};
}
inline Ints zero_ints() { return all_ints(0); }
inline Ints load_ints(const int32_t* p) {
  return {four_ints(p), four_ints(p + 4), four_ints(p + 8), four_ints(p + 12)};
}
inline Four floats_of(FourInts x) { return __builtin_convertvector(x, Four); }
inline Lanes to_lanes(Ints x) { return {floats_of(x.a), floats_of(x.b), floats_of(x.c), floats_of(x.d)}; }
inline void store(int32_t* p, Ints x) { __builtin_memcpy(p, &x, sizeof x); }

// A lane of 32 bits holds the four codes of an output, the first in the lowest byte.
struct Quads {
  FourInts a, b, c, d;
};
struct QuadRow {
  int32_t first, second, third, fourth;
};
using QuadInput = int32_t;
constexpr int kQuadBytes = 16;  // of four inputs, as all_quads reads them
// Bytes as they would be read on a little-endian machine.
inline FourInts four_codes(const uint8_t* p) {
  FourInts x = four_ints(p);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  for (int i = 0; i < 4; i++) x[i] = static_cast<int32_t>(__builtin_bswap32(static_cast<uint32_t>(x[i])));
#endif
  return x;
}
inline Quads load_quads(const uint8_t* p) {
  return {four_codes(p), four_codes(p + 16), four_codes(p + 32), four_codes(p + 48)};
}
inline Quads low_quads(const uint8_t* p) {
  const Quads x = load_quads(p);
  return {x.a & 0x0F0F0F0F, x.b & 0x0F0F0F0F, x.c & 0x0F0F0F0F, x.d & 0x0F0F0F0F};
}
inline Quads high_quads(const uint8_t* p) {
  const Quads x = load_quads(p);
  return {x.a >> 4 & 0x0F0F0F0F, x.b >> 4 & 0x0F0F0F0F, x.c >> 4 & 0x0F0F0F0F, x.d >> 4 & 0x0F0F0F0F};
}
inline QuadRow all_quads(const QuadInput* x) { return {x[0], x[1], x[2], x[3]}; }
inline FourInts dot_four(FourInts sum, FourInts w, QuadRow x) {
  const FourInts front = (w & 0xFF) * x.first + (w >> 8 & 0xFF) * x.second;
  return sum + front + (w >> 16 & 0xFF) * x.third + (w >> 24 & 0xFF) * x.fourth;
}
inline Ints dot_quads(Ints sum, Quads w, QuadRow x) {
  return {dot_four(sum.a, w.a, x), dot_four(sum.b, w.b, x), dot_four(sum.c, w.c, x), dot_four(sum.d, w.d, x)};
}
inline void store_quads(QuadInput* out, Lanes x) {
  float values[16];
  store(values, x);
  for (int i = 0; i < 16; i++) out[i] = static_cast<int32_t>(values[i]);
}

// float16 -> float. A subnormal is its mantissa times 2^-24, which a float holds as a normal number.
inline Four float16_four(const uint16_t* p) {
  const FourInts bits = {p[0], p[1], p[2], p[3]};
  const FourInts size = bits & 0x7FFF, sign = (bits & 0x8000) << 16;
  const FourInts normal = (size << 13) + (112 << 23), special = size << 13 | 0x7F800000;
  const Four small = floats_of(size) * four(5.9604644775390625e-8f);
  const Four finite = pick(size < 0x0400, small, (Four)normal);
  return (Four)((FourInts)pick(size >= 0x7C00, (Four)special, finite) | sign);
}
inline Lanes from_float16(const uint16_t* p) {
  return {float16_four(p), float16_four(p + 4), float16_four(p + 8), float16_four(p + 12)};
}
// To the nearest float16, ties to even; too large becomes infinite.
inline uint16_t nearest_float16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7FFFFFFFu;
  if (size > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (size >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (size >= 0x38800000u)  // normal
    return static_cast<uint16_t>(sign | (((size + 0xFFFu + (size >> 13 & 1u)) >> 13) - (112u << 10)));
  const uint32_t shift = 126u - (size >> 23);  // of a mantissa in units of 2^-24
  if (shift > 24u) return static_cast<uint16_t>(sign);
  const uint32_t mantissa = (size & 0x7FFFFFu) | 0x800000u, half = 1u << (shift - 1u);
  return static_cast<uint16_t>(sign | (mantissa + half - 1u + (mantissa >> shift & 1u)) >> shift);
}
inline void to_float16(uint16_t* p, Lanes x) {
  float values[16];
  store(values, x);
  for (int i = 0; i < 16; i++) p[i] = nearest_float16(values[i]);
}
