// Matrix products: C[m, n] is one chain over k in ascending order, whatever the tile it is computed in.
//
// A tile holds M rows x NB column blocks of accumulators in registers. Few rows: the tile runs over all of k, and the
// blocks' independent chains hide the latency. Many rows: k is cut into panels so that the weights of a panel stay in
// the second-level cache while all rows pass; a chain is put down into y and taken up again, which changes no bit.

constexpr int64_t kPanelBytes = 256 * 1024;  // of packed weights, at four blocks
constexpr int64_t kStreamAhead = 8192;       // bytes between what few rows read and what is fetched meanwhile

// Blocks that are read side by side for few rows: two, where the registers allow it, so that their chains hide each
// other's latency (one dot product every 6 cycles on Zen 5 is less than memory gives); more streams slow memory down.
constexpr int stream_width(int rows) { return max_blocks(rows) < 4 ? 1 : 2; }

// f(offset, lanes) for every sixteen of `size`, the last maybe fewer.
template <class F>
inline void each_sixteen(int64_t size, F f) {
  const int64_t whole = size / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) f(i, kLanes);
  if (whole < size) f(whole, static_cast<int>(size - whole));
}

inline Lanes load_some(const float* p, int lanes) { return lanes == kLanes ? load(p) : load(p, lanes); }
inline void store_some(float* p, Lanes x, int lanes) {
  if (lanes == kLanes)
    store(p, x);
  else
    store(p, x, lanes);
}

struct Floats {  // float32 weights: one input a step
  using Weight = float;
  using Input = float;
  static constexpr int kWeights = 16, kInputs = 1;
  using W = Lanes;
  static W weights(const Weight* p) { return load(p); }
  static W inputs(const Input* x) { return all(*x); }
  static Lanes step(Lanes sum, W x, W w) { return fma(x, w, sum); }
};

struct Halves {  // bfloat16 weights: two inputs a step
  using Weight = uint16_t;
  using Input = PairInput;
  static constexpr int kWeights = 32, kInputs = kPairWords;
  using W = Pairs;
  static W weights(const Weight* p) { return load_pairs(p); }
  static W inputs(const Input* x) { return all_pairs(x); }
  static Lanes step(Lanes sum, W x, W w) { return dot_pairs(sum, x, w); }
};

template <class T>
struct Tile {
  const typename T::Weight* weights[8];  // of each block, at the first step
  const char* x;                         // of the first row, at the first step
  ptrdiff_t x_stride;                    // bytes
  ptrdiff_t x_ahead;                     // bytes to the rows of the next tile, which are fetched meanwhile
  float* y;                              // first row, first column
  ptrdiff_t y_stride;
  const float* bias;  // at the first column, or null; added when the chain ends here
  int64_t steps;
  int last_lanes;  // columns of the last block that exist
  bool resume;     // the chains go on from y
  // What is fetched ahead, a line a step: entry NB + j while block j of a tile of NB ends. Null first: nothing.
  const typename T::Weight* next[16];
};

constexpr int64_t kAhead = 64;  // steps, one cache line each for most formats

// One step of every chain. The loops over a tile are unrolled by order: only then do its chains stay in registers.
template <class T, int M, int NB>
inline void step_all(const typename T::Weight* const (&w)[NB], int64_t s, const char* x, ptrdiff_t x_stride,
                     Lanes (&sum)[M][NB]) {
  typename T::W b[NB];
#pragma GCC unroll 8
  for (int j = 0; j < NB; j++) b[j] = T::weights(w[j] + s * T::kWeights);
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
    const typename T::W in = T::inputs(reinterpret_cast<const typename T::Input*>(x + m * x_stride));
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) sum[m][j] = T::step(sum[m][j], in, b[j]);
  }
}

template <class T>
constexpr ptrdiff_t kStepBytes = T::kInputs * sizeof(typename T::Input);

// Steps first .. last - 1, while `ahead` is fetched, a line of each block a step.
template <class T, int M, int NB>
inline void run_fetching(const Tile<T>& t, int64_t first, int64_t last, const typename T::Weight* const* ahead,
                         Lanes (&sum)[M][NB]) {
  const typename T::Weight *w[NB], *a[NB];
#pragma GCC unroll 8
  for (int j = 0; j < NB; j++) {
    w[j] = t.weights[j];
    a[j] = ahead[j];
  }
  const ptrdiff_t x_stride = t.x_stride;
  const char* x = t.x + first * kStepBytes<T>;
  for (int64_t s = first; s < last; s++, x += kStepBytes<T>) {
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) __builtin_prefetch(a[j] + (s - first) * T::kWeights);
    step_all<T, M, NB>(w, s, x, x_stride, sum);
  }
}

// All steps, the weights being in the cache; the rows of the next tile are fetched.
template <class T, int M, int NB>
inline void run_resident(const Tile<T>& t, Lanes (&sum)[M][NB]) {
  constexpr int64_t kLineSteps = 64 / kStepBytes<T>;
  const typename T::Weight* w[NB];
#pragma GCC unroll 8
  for (int j = 0; j < NB; j++) w[j] = t.weights[j];
  const ptrdiff_t x_stride = t.x_stride;
  const char* x = t.x;
  for (int64_t s = 0; s < t.steps;) {
    const int64_t stop = s + kLineSteps < t.steps ? s + kLineSteps : t.steps;
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) __builtin_prefetch(x + m * x_stride + t.x_ahead, 0, 2);
    for (; s < stop; s++, x += kStepBytes<T>) step_all<T, M, NB>(w, s, x, x_stride, sum);
  }
}

template <class T, int M, int NB>
__attribute__((noinline)) void run_tile(const Tile<T>& t) {
  Lanes sum[M][NB];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) {
      const float* y = t.y + m * t.y_stride + j * kLanes;
      sum[m][j] = !t.resume ? zero() : j + 1 < NB ? load(y) : load(y, t.last_lanes);
    }
  if (t.next[0] == nullptr) {
    run_resident<T, M, NB>(t, sum);
  } else {
    const int64_t own = t.steps > kAhead ? t.steps - kAhead : 0;  // up to here the block's own is fetched
    const typename T::Weight* ahead[NB];
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) ahead[j] = t.weights[j] + kAhead * T::kWeights;
    if (own) run_fetching<T, M, NB>(t, 0, own, ahead, sum);
    run_fetching<T, M, NB>(t, own, t.steps, t.next, sum);
  }
#pragma GCC unroll 8
  for (int j = 0; j < NB; j++) {
    const int lanes = j + 1 < NB ? kLanes : t.last_lanes;
    const Lanes bias = t.bias ? load(t.bias + j * kLanes, lanes) : zero();
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      float* y = t.y + m * t.y_stride + j * kLanes;
      const Lanes out = t.bias ? sum[m][j] + bias : sum[m][j];
      if (lanes == kLanes)
        store(y, out);
      else
        store(y, out, lanes);
    }
  }
}

// The largest tile of M rows that fits `blocks`; returns how many blocks it took.
template <class T, int M, int NB = max_blocks(M)>
int run_blocks(const Tile<T>& t, int64_t blocks) {
  if (blocks >= NB) {
    Tile<T> whole = t;
    if (blocks > NB) whole.last_lanes = kLanes;
    if (t.next[0])
      for (int j = 0; j < NB; j++) whole.next[j] = t.next[NB + j];
    run_tile<T, M, NB>(whole);
    return NB;
  }
  if constexpr (NB > 1) return run_blocks<T, M, NB / 2>(t, blocks);
  return 0;
}

template <class T, int M = kMaxRows>
int run_rows(const Tile<T>& t, int rows, int64_t blocks) {
  if (rows == M) return run_blocks<T, M>(t, blocks);
  if constexpr (M > 1) return run_rows<T, M - 1>(t, rows, blocks);
  return 0;
}

inline int lanes_of_last(int64_t n, int64_t block_end) {
  const int64_t beyond = block_end * kLanes - n;
  return beyond > 0 ? kLanes - static_cast<int>(beyond) : kLanes;
}

template <class T>
int64_t steps_of(int64_t k) {
  return T::kWeights == kLanes ? k : (k + 1) / 2;
}

// Steps first .. first + count - 1 of some blocks, for the rows from `row` on.
template <class T>
Tile<T> tile_at(const Product& p, int64_t block, int64_t blocks, int64_t row, int64_t first, int64_t count,
                bool fetch) {
  const int64_t steps = steps_of<T>(p.k);
  Tile<T> t;
  const typename T::Weight* weights = static_cast<const typename T::Weight*>(p.weights) + first * T::kWeights;
  for (int64_t j = 0; j < 8 && j < blocks; j++) t.weights[j] = weights + (block + j) * steps * T::kWeights;
  for (int64_t j = 0; j < 16; j++) t.next[j] = fetch ? weights + (block + j) * steps * T::kWeights : nullptr;
  t.x = static_cast<const char*>(p.x) + row * p.x_stride +
        first * T::kInputs * static_cast<ptrdiff_t>(sizeof(typename T::Input));
  t.x_stride = p.x_stride;
  t.x_ahead = kPanelRows * p.x_stride;
  t.y = p.y + row * p.y_stride + block * kLanes;
  t.y_stride = p.y_stride;
  t.bias = p.bias && first + count == steps ? p.bias + block * kLanes : nullptr;
  t.steps = count;
  t.resume = first > 0;
  t.last_lanes = lanes_of_last(p.n, block + blocks);
  return t;
}

// Few rows: NB neighbouring blocks, then the next NB, so that the weights are one stream or two, fetched ahead across
// the end of a block. Memory is the limit.
template <class T, int M, int NB>
__attribute__((noinline)) void stream_blocks(const Product& p, int64_t block, int64_t last_block, int64_t row) {
  constexpr int64_t kStepLine = T::kWeights * static_cast<int64_t>(sizeof(typename T::Weight));
  constexpr int64_t lookahead = (NB == 1 ? 2 * kStreamAhead : kStreamAhead / NB) / kStepLine;
  const int64_t steps = steps_of<T>(p.k);
  const int64_t ahead = lookahead < steps ? lookahead : steps;
  const ptrdiff_t x_stride = p.x_stride;
  for (; block + NB <= last_block; block += NB) {
    const typename T::Weight* w[NB];
    Lanes sum[M][NB];
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) {
      w[j] = static_cast<const typename T::Weight*>(p.weights) + (block + j) * steps * T::kWeights;
#pragma GCC unroll 8
      for (int m = 0; m < M; m++) sum[m][j] = zero();
    }
    const char* x = static_cast<const char*>(p.x) + row * p.x_stride;
    int64_t s = 0;
    for (int part = 0; part < 2; part++) {  // while these blocks are fetched; while the beginning of the next ones is
      const int64_t stop = part ? steps : steps - ahead;
      const int64_t further = (part ? ahead + (NB - 1) * steps : ahead) * T::kWeights;
      for (; s < stop; s++, x += kStepBytes<T>) {
#pragma GCC unroll 8
        for (int j = 0; j < NB; j++) __builtin_prefetch(w[j] + s * T::kWeights + further);
        step_all<T, M, NB>(w, s, x, x_stride, sum);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) {
      const int lanes = lanes_of_last(p.n, block + j + 1);
      const Lanes bias = p.bias ? load_some(p.bias + (block + j) * kLanes, lanes) : zero();
#pragma GCC unroll 8
      for (int m = 0; m < M; m++)
        store_some(p.y + (row + m) * p.y_stride + (block + j) * kLanes, p.bias ? sum[m][j] + bias : sum[m][j], lanes);
    }
  }
  if constexpr (NB > 1) stream_blocks<T, M, 1>(p, block, last_block, row);
}

template <class T, int M = kMaxRows>
void product_few(const Product& p, int64_t block, int64_t last_block, int64_t row, int rows) {
  if (rows == M) return stream_blocks<T, M, stream_width(M)>(p, block, last_block, row);
  if constexpr (M > 1) product_few<T, M - 1>(p, block, last_block, row, rows);
}

template <class T>
void product_many(const Product& p, int64_t block, int64_t last_block, int64_t first_row, int64_t last_row) {
  constexpr int kBlocks = max_blocks(kPanelRows);
  const int64_t panel = kPanelBytes / (4 * T::kWeights * static_cast<int64_t>(sizeof(typename T::Weight)));
  const int64_t steps = steps_of<T>(p.k);
  for (; block < last_block; block += kBlocks) {
    const int64_t blocks = last_block - block < kBlocks ? last_block - block : kBlocks;
    for (int64_t done = 0; done < steps; done += panel) {
      const int64_t count = steps - done < panel ? steps - done : panel;
      for (int64_t row = first_row; row < last_row; row += kPanelRows) {
        const int rows = last_row - row < kPanelRows ? static_cast<int>(last_row - row) : kPanelRows;
        for (int64_t taken = 0; taken < blocks;) {
          const Tile<T> t = tile_at<T>(p, block + taken, blocks - taken, row, done, count, row == first_row);
          taken += run_rows<T>(t, rows, blocks - taken);
        }
      }
    }
  }
}

template <class T>
void product_of(const Product& p, int64_t first_block, int64_t last_block, int64_t first_row, int64_t last_row) {
  const int64_t rows = last_row - first_row;
  if (rows <= 0 || first_block >= last_block) return;
  if (rows <= kMaxRows)
    product_few<T>(p, first_block, last_block, first_row, static_cast<int>(rows));
  else
    product_many<T>(p, first_block, last_block, first_row, last_row);
}
