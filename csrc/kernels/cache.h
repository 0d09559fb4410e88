// The slots of the cache: one token's key and value of one head, and the query that meets them.
//
// A tile is sixteen tokens, in lines of 64 bytes; token `lane` of it is written here, by one writer (ops/paged.py has
// the layout). An int8 tile ends with one more line, the float32 scales of its sixteen tokens: code = x / scale rounded
// to nearest, scale = max|x| / 127 over the head. A query that meets int8 keys is itself two rows of codes, a coarse
// and a fine one (x = scale * (128 * coarse + fine), 14 bits), so that of the two factors only the cache is rounded to
// eight bits.

constexpr float kTiny = 1e-30f;       // a head that is nowhere larger has codes 0 and scale 0
constexpr float kFineSteps = 16256;  // 127 * 128: the largest code of coarse and fine together
constexpr int kTileQuads = kLanes / 4;

// How a row of numbers becomes codes: code = x * inverse, x = code * scale. Infinities and NaN make the scale NaN.
struct Grid {
  float scale, inverse;
};

inline Grid grid_of(float high, float doubt, float steps) {
  if (!(high >= kTiny)) return {0.0f + doubt, 0.0f};
  return {high / steps + doubt, steps / high};
}

inline Grid grid_of_row(const float* x, int size, float steps) {
  Lanes top = zero(), doubt = zero();
  each_sixteen(size, [&](int64_t i, int lanes) {
    const Lanes value = load_some(x + i, lanes);
    top = maximum(top, magnitude(value));
    doubt = fma(value, zero(), doubt);  // NaN where the value is infinite or NaN
  });
  return grid_of(tree_max(top), tree_sum(doubt), steps);
}

// x * inverse to the nearest code of -steps .. steps; a NaN becomes one of them.
inline Lanes codes_of(Lanes x, float inverse, float steps) {
  return nearest(minimum(maximum(x * all(inverse), all(-steps)), all(steps)));
}

// Sixteen unsigned codes of a cached row.
inline void cache_codes(Lanes x, float inverse, uint8_t* out) {
  float codes[kLanes];
  store(codes, codes_of(x, inverse, 127.0f) + all(128.0f));
  for (int j = 0; j < kLanes; j++) out[j] = static_cast<uint8_t>(static_cast<int>(codes[j]));
}

// Sixteen numbers as a coarse and a fine row of codes, and what the codes of each row sum to.
inline void fine_codes(Lanes x, float inverse, char* coarse, char* fine, Lanes (&sums)[2]) {
  const Lanes code = codes_of(x, inverse, kFineSteps);
  const Lanes high = nearest(code * all(1.0f / 128.0f)), low = code - high * all(128.0f);
  store_quads(reinterpret_cast<QuadInput*>(coarse), high);
  store_quads(reinterpret_cast<QuadInput*>(fine), low);
  sums[0] = sums[0] + high;
  sums[1] = sums[1] + low;
}

// The integer chain's start, which takes the offset of the unsigned codes out of it.
inline int32_t start_of(Lanes codes) { return -128 * static_cast<int32_t>(tree_sum(codes)); }

inline int key_lines(Number number, int head_dim) {
  return number == Number::float32 ? head_dim : number == Number::bfloat16 ? (head_dim + 1) / 2 : (head_dim + 3) / 4;
}

inline void write_key_codes(const float* k, int head_dim, uint8_t* tile, int lane) {
  const Grid grid = grid_of_row(k, head_dim, 127.0f);
  uint8_t codes[kLanes];
  each_sixteen(head_dim, [&](int64_t i, int lanes) {
    cache_codes(load_some(k + i, lanes), grid.inverse, codes);
    for (int j = 0; j < (lanes + 3) / 4 * 4; j++) tile[(i + j) / 4 * 64 + 4 * lane + j % 4] = codes[j];
  });
  __builtin_memcpy(tile + key_lines(Number::int8, head_dim) * 64 + 4 * lane, &grid.scale, 4);
}

void write_key(Number number, const float* k, int head_dim, void* tile, int lane) {
  if (number == Number::int8) return write_key_codes(k, head_dim, static_cast<uint8_t*>(tile), lane);
  if (number == Number::float32) {
    float* out = static_cast<float*>(tile) + lane;
    for (int i = 0; i < head_dim; i++) out[i * kLanes] = k[i];
    return;
  }
  uint16_t* out = static_cast<uint16_t*>(tile) + 2 * lane;
  uint16_t bits[kLanes];
  each_sixteen(head_dim, [&](int64_t i, int lanes) {
    narrow(bits, load_some(k + i, lanes));
    for (int j = 0; j < (lanes + 1) / 2 * 2; j++) out[(i + j) / 2 * 2 * kLanes + j % 2] = bits[j];  // an odd end: zero
  });
}

inline void write_value_codes(const float* v, int head_dim, uint8_t* tile, int lane) {
  const Grid grid = grid_of_row(v, head_dim, 127.0f);
  uint8_t codes[kLanes];
  each_sixteen(head_dim, [&](int64_t i, int lanes) {
    cache_codes(load_some(v + i, lanes), grid.inverse, codes);
    uint8_t* out = tile + (i / 4 + lane / 4) * 64 + lane % 4;  // four lines for sixteen entries
    for (int j = 0; j < kLanes; j++) out[4 * j] = codes[j];
  });
  const int lines = (head_dim + kLanes - 1) / kLanes * kTileQuads;
  __builtin_memcpy(tile + lines * 64 + 4 * lane, &grid.scale, 4);
}

void write_value(Number number, const float* v, int head_dim, void* tile, int lane) {
  if (number == Number::int8) return write_value_codes(v, head_dim, static_cast<uint8_t*>(tile), lane);
  uint16_t bits[kLanes];
  each_sixteen(head_dim, [&](int64_t i, int lanes) {  // the padding up to sixteen stays zero
    const Lanes value = load_some(v + i, lanes);
    if (number == Number::float32) return store(static_cast<float*>(tile) + (i + lane) * kLanes, value);
    narrow(bits, value);
    uint16_t* out = static_cast<uint16_t*>(tile) + (i / 2 + lane / 2) * 2 * kLanes + lane % 2;
    for (int j = 0; j < kLanes; j++) out[2 * j] = bits[j];
  });
}

// A query in front of int8 keys: this, then the coarse row, then the fine one, each from a cache line on.
struct QueryCodes {
  float scale;
  int32_t starts[2];
};

inline ptrdiff_t quads_bytes(int64_t size) { return ((size + 15) / 16 * 4 * kQuadBytes + 63) / 64 * 64; }

ptrdiff_t query_bytes(Number number, int head_dim) {
  if (number != Number::int8) return prepared_bytes(number, head_dim);
  return ((64 + 2 * quads_bytes(head_dim)) / 64 | 1) * 64;  // an odd number of lines, as in prepared_bytes
}

void prepare_query(Number number, const float* q, int head_dim, void* out) {
  if (number != Number::int8) return prepare(number, q, 0, head_dim, out);
  const Grid grid = grid_of_row(q, head_dim, kFineSteps);
  char* coarse = static_cast<char*>(out) + 64;
  char* fine = coarse + quads_bytes(head_dim);
  Lanes sums[2] = {zero(), zero()};
  each_sixteen(head_dim, [&](int64_t i, int lanes) {
    const ptrdiff_t at = i / 4 * kQuadBytes;
    fine_codes(load_some(q + i, lanes), grid.inverse, coarse + at, fine + at, sums);
  });
  const QueryCodes head = {grid.scale, {start_of(sums[0]), start_of(sums[1])}};
  __builtin_memcpy(out, &head, sizeof head);
}
