// Products with quantised weights: integer sums over groups of 32 inputs, and one float chain over the groups.
//
// A row is quantised too, group by group, so that everything inside a group is an exact integer and its order free:
//
//     y[n] = chain over groups g, ascending:  acc = fma(float(isum[g][n]), x_scale[g] * w_scale[g][n], acc)
//     isum[g][n] = sum of (u - offset) * x  =  -offset * sum(x)  +  sum of u * x          u: unsigned weight codes
//
// The first term depends on the row alone: it is where the integer sums start. A prepared row is one record a group:
//
//     codes of 32 inputs, as all_quads reads them | int32 start | float32 scale
//
// int8-channel has one scale an output, so its chain multiplies by x_scale alone and the result by w_scale at the end.

constexpr int kGroup = 32;  // inputs that share a scale
constexpr int kGroupQuads = kGroup / 4;
constexpr ptrdiff_t kStartAt = kGroupQuads * kQuadBytes, kScaleAt = kStartAt + 4, kRecordBytes = kScaleAt + 4;
constexpr ptrdiff_t kLine = 64;
constexpr int64_t kPanelAhead = 1024;  // bytes: from the second-level cache to the first
constexpr float kNearZero = 1e-30f;  // a group of nothing larger has codes 0 and scale 0: 127 / max must be finite

// A format is a row of units: kLead lines of scales, then kGroupLines of codes for each of kGroups groups.
struct Int8 {
  static constexpr int kGroups = 2, kLead = 1, kGroupLines = 8, kTail = 0, kOffset = 128;
  static constexpr bool kGroupScales = true;
  static Quads quads(const uint8_t* codes, int q) { return load_quads(codes + q * kLine); }
  static int code(const uint8_t* codes, int i) { return codes[i / 4 * kLine + i % 4]; }  // of the first output
};
struct Int8Channel {
  static constexpr int kGroups = 1, kLead = 0, kGroupLines = 8, kTail = 1, kOffset = 128;
  static constexpr bool kGroupScales = false;
  static Quads quads(const uint8_t* codes, int q) { return load_quads(codes + q * kLine); }
  static int code(const uint8_t* codes, int i) { return codes[i / 4 * kLine + i % 4]; }  // of the first output
};
struct Int4 {
  static constexpr int kGroups = 2, kLead = 1, kGroupLines = 4, kTail = 0, kOffset = 8;
  static constexpr bool kGroupScales = true;
  static Quads quads(const uint8_t* codes, int q) {
    return q % 2 ? high_quads(codes + q / 2 * kLine) : low_quads(codes + q / 2 * kLine);
  }
  static int code(const uint8_t* codes, int i) { return codes[i / 8 * kLine + i % 4] >> (i / 4 % 2 * 4) & 0x0F; }
};
template <class F>
constexpr ptrdiff_t kUnitBytes = (F::kLead + F::kGroups * F::kGroupLines) * kLine;
template <class F>
int64_t units_of(int64_t k) {
  return (k + F::kGroups * kGroup - 1) / (F::kGroups * kGroup);
}
template <class F>
ptrdiff_t block_bytes(int64_t k) {
  return units_of<F>(k) * kUnitBytes<F> + F::kTail * kLine;
}

// Group g of a unit into the chains of M rows and NB blocks, while the lines `ahead` bytes further on are fetched.
template <class F, int M, int NB>
inline void add_group(const uint8_t* const (&unit)[NB], int g, const char* x, ptrdiff_t x_stride, ptrdiff_t ahead,
                      Lanes (&sum)[M][NB]) {
  const ptrdiff_t at = (F::kLead + g * F::kGroupLines) * kLine;
  Ints part[M][NB];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) part[m][j] = all_ints(*reinterpret_cast<const int32_t*>(x + m * x_stride + kStartAt));
#pragma GCC unroll 8
  for (int q = 0; q < kGroupQuads; q++) {
    Quads w[NB];
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) {
      w[j] = F::quads(unit[j] + at, q);
      if (q < F::kGroupLines) __builtin_prefetch(unit[j] + at + q * kLine + ahead);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      const QuadRow in = all_quads(reinterpret_cast<const QuadInput*>(x + m * x_stride + q * kQuadBytes));
#pragma GCC unroll 8
      for (int j = 0; j < NB; j++) part[m][j] = dot_quads(part[m][j], w[j], in);
    }
  }
  Lanes scale[NB];
  if constexpr (F::kGroupScales) {
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) {
      scale[j] = from_float16(reinterpret_cast<const uint16_t*>(unit[j]) + g * kLanes);
      if (g == 0) __builtin_prefetch(unit[j] + ahead);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
    const Lanes own = all(*reinterpret_cast<const float*>(x + m * x_stride + kScaleAt));
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) {
      if constexpr (F::kGroupScales)
        sum[m][j] = fma(to_lanes(part[m][j]), own * scale[j], sum[m][j]);
      else
        sum[m][j] = fma(to_lanes(part[m][j]), own, sum[m][j]);
    }
  }
}

// Units of NB neighbouring blocks and M rows; what a chain needs is at the first unit, the first row, the first column.
struct GroupTile {
  const uint8_t* weights;
  ptrdiff_t block_stride;
  int64_t turn;                  // before this unit lines of the same block are fetched, from it on those of the next
  ptrdiff_t ahead, ahead_after;  // bytes from what is read to what is fetched
  const char* x;
  ptrdiff_t x_stride;
  float* y;
  ptrdiff_t y_stride;
  const float* bias;
  int64_t units;
  int last_lanes;
  bool resume, finish;  // the chains go on from y; they end here
};

template <class F, int M, int NB>
__attribute__((noinline)) void run_groups(const GroupTile& t) {
  Lanes sum[M][NB];
  const uint8_t* unit[NB];
#pragma GCC unroll 8
  for (int j = 0; j < NB; j++) {
    unit[j] = t.weights + j * t.block_stride;
    if (F::kTail) __builtin_prefetch(unit[j] + t.units * kUnitBytes<F>);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      const float* y = t.y + m * t.y_stride + j * kLanes;
      sum[m][j] = !t.resume ? zero() : j + 1 < NB ? load(y) : load(y, t.last_lanes);
    }
  }
  const char* x = t.x;
  const ptrdiff_t x_stride = t.x_stride;
  int64_t u = 0;
  for (int part = 0; part < 2; part++) {
    const int64_t stop = part ? t.units : t.turn;
    const ptrdiff_t ahead = part ? t.ahead_after : t.ahead;
    for (; u < stop; u++) {
#pragma GCC unroll 2
      for (int g = 0; g < F::kGroups; g++, x += kRecordBytes) add_group<F, M, NB>(unit, g, x, x_stride, ahead, sum);
#pragma GCC unroll 8
      for (int j = 0; j < NB; j++) unit[j] += kUnitBytes<F>;
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < NB; j++) {
    const int lanes = j + 1 < NB ? kLanes : t.last_lanes;
    const bool biased = t.finish && t.bias;
    const Lanes bias = biased ? load(t.bias + j * kLanes, lanes) : zero();
    Lanes scale = zero();
    if constexpr (!F::kGroupScales)
      if (t.finish) scale = load(reinterpret_cast<const float*>(unit[j]));
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      Lanes out = sum[m][j];
      if constexpr (!F::kGroupScales)
        if (t.finish) out = out * scale;
      if (biased) out = out + bias;
      store_some(t.y + m * t.y_stride + j * kLanes, out, lanes);
    }
  }
}

template <class F, int NB, int M = NB == 1 ? kMaxRows : kGroupTileRows>
void run_group_rows(const GroupTile& t, int rows) {
  if (rows == M) return run_groups<F, M, NB>(t);
  if constexpr (M > 1) run_group_rows<F, NB, M - 1>(t, rows);
}

// Units first .. first + count - 1 of NB blocks and some rows.
template <class F, int NB>
void run_group_tile(const Product& p, int64_t block, int64_t row, int rows, int64_t first, int64_t count,
                    int64_t fetch) {
  const ptrdiff_t stride = block_bytes<F>(p.k), bytes = kUnitBytes<F>;
  const int64_t units = units_of<F>(p.k), lead = fetch / bytes < count ? fetch / bytes : count;
  GroupTile t;
  t.weights = static_cast<const uint8_t*>(p.weights) + block * stride + first * bytes;
  t.block_stride = stride;
  t.units = count;
  t.turn = count - lead;
  t.ahead = lead * bytes;
  t.ahead_after = count == units ? NB * stride - t.turn * bytes : t.ahead;  // a panel goes on in its own blocks
  t.x = static_cast<const char*>(p.x) + row * p.x_stride + first * F::kGroups * kRecordBytes;
  t.x_stride = p.x_stride;
  t.y = p.y + row * p.y_stride + block * kLanes;
  t.y_stride = p.y_stride;
  t.bias = p.bias ? p.bias + block * kLanes : nullptr;
  t.resume = first > 0;
  t.finish = first + count == units;
  t.last_lanes = lanes_of_last(p.n, block + NB);
  run_group_rows<F, NB>(t, rows);
}

// Few rows: one block after the other, a single stream, fetched ahead across the end of a block. Memory is the limit:
// the integer sums of neighbouring groups do not wait for each other, so that no second block is needed beside it.
template <class F>
void group_product_few(const Product& p, int64_t block, int64_t last_block, int64_t row, int rows) {
  for (; block < last_block; block++) run_group_tile<F, 1>(p, block, row, rows, 0, units_of<F>(p.k), kStreamAhead);
}

// Many rows: a panel of weights stays in the cache while all rows pass.
template <class F>
void group_product_many(const Product& p, int64_t block, int64_t last_block, int64_t first_row, int64_t last_row) {
  constexpr int kBlocks = kGroupTileBlocks;
  constexpr int64_t kPanel = kPanelBytes / (4 * kUnitBytes<F>);
  const int64_t units = units_of<F>(p.k);
  for (; block < last_block; block += kBlocks)
    for (int64_t done = 0; done < units; done += kPanel) {
      const int64_t count = units - done < kPanel ? units - done : kPanel;
      for (int64_t row = first_row; row < last_row; row += kGroupTileRows) {
        const int rows = last_row - row < kGroupTileRows ? static_cast<int>(last_row - row) : kGroupTileRows;
        const int64_t fetch = row == first_row ? kStreamAhead : kPanelAhead;  // the first rows bring it from memory
        if (block + kBlocks <= last_block)
          run_group_tile<F, kBlocks>(p, block, row, rows, done, count, fetch);
        else
          for (int64_t b = block; b < last_block; b++) run_group_tile<F, 1>(p, b, row, rows, done, count, fetch);
      }
    }
}

template <class F>
void group_product_of(const Product& p, int64_t first_block, int64_t last_block, int64_t first_row, int64_t last_row) {
  const int64_t rows = last_row - first_row;
  if (rows <= 0 || first_block >= last_block) return;
  if (rows <= kMaxRows)
    group_product_few<F>(p, first_block, last_block, first_row, static_cast<int>(rows));
  else
    group_product_many<F>(p, first_block, last_block, first_row, last_row);
}

// 32 inputs -> one record. A group with NaN or infinity has the scale NaN, and so its whole row of results.
inline void prepare_group(const float* x, int size, int offset, char* out) {
  Lanes part[2] = {size < kLanes ? load(x, size) : load(x),
                   size >= kGroup  ? load(x + kLanes)
                   : size > kLanes ? load(x + kLanes, size - kLanes)
                                   : zero()};
  const Lanes infinite = all(__builtin_inff());
  Lanes top = zero();
  for (int i = 0; i < 2; i++) {
    const Lanes size_of = magnitude(part[i]);
    top = maximum(top, where_less(size_of, infinite, size_of, infinite));
  }
  const float high = tree_max(top);
  const bool finite = high < __builtin_inff(), something = finite && high >= kNearZero;
  const float scale = !finite ? __builtin_nanf("") : something ? high / 127.0f : 0.0f;
  const Lanes by = all(something ? 127.0f / high : 0.0f);
  for (int i = 0; i < 2; i++) {
    part[i] = something ? nearest(part[i] * by) : zero();
    store_quads(reinterpret_cast<QuadInput*>(out + i * kStartAt / 2), part[i]);
  }
  const int32_t start = -offset * static_cast<int32_t>(tree_sum(part[0] + part[1]));
  __builtin_memcpy(out + kStartAt, &start, 4);
  __builtin_memcpy(out + kScaleAt, &scale, 4);
}

template <class F>
void prepare_groups(const float* x, int64_t first, int64_t last, void* out) {
  constexpr int64_t kUnit = F::kGroups * kGroup;
  const int64_t end = (last + kUnit - 1) / kUnit * kUnit;  // an end that is no multiple is that of the row
  char* record = static_cast<char*>(out) + first / kGroup * kRecordBytes;
  for (int64_t i = first; i < end; i += kGroup, record += kRecordBytes) {
    const int64_t left = last - i;
    prepare_group(x + (left > 0 ? i : first), left <= 0 ? 0 : left < kGroup ? static_cast<int>(left) : kGroup,
                  F::kOffset, record);
  }
}

template <class F>
int64_t group_prepared_bytes(int64_t k) {
  return units_of<F>(k) * F::kGroups * kRecordBytes;
}
