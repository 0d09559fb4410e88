// Scores and weighted values for a cache of int8 codes, in exact integers: no order of a sum can be seen in them.
//
// A query is two rows of codes, coarse and fine (cache.h), and so are the weights of the values: softmax weight times
// the value's scale, over the largest such product of the split. Both rows meet the same tiles; what they give is
// combined as 128 * coarse + fine. A token that a query does not see has weight codes 0 and its scale is never used.
//
//     score[t]  = (128 * coarse + fine)[t] * key scale[t] * query scale * kv.scale
//     output[d] = (128 * coarse + fine)[d] * weight scale of the query and split

constexpr ptrdiff_t kWeightRow = kSplit / 4 * kQuadBytes;  // one row of weight codes

struct CodeScores {
  const char* const* tiles;
  const char* const* after;
  const char* q;
  ptrdiff_t q_stride, row;  // bytes to the next query, from the coarse row to the fine one
  int64_t lines;            // of a tile, without the scales
  float* scores;
};

template <int M, int NB, bool Fetch>
__attribute__((noinline)) void score_codes(const CodeScores& run) {
  Ints sum[M][2][NB];
  const uint8_t* w[NB];
  const char* ahead[NB];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
    QueryCodes head;
    __builtin_memcpy(&head, run.q + m * run.q_stride, sizeof head);
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) {
      sum[m][0][j] = all_ints(head.starts[0]);
      sum[m][1][j] = all_ints(head.starts[1]);
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < NB; j++) {
    w[j] = reinterpret_cast<const uint8_t*>(run.tiles[j]);
    if (Fetch) ahead[j] = run.after[j];
  }
  const char* q = run.q + 64;
  for (int64_t s = 0; s < run.lines; s++, q += kQuadBytes) {
    Quads b[NB];
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) {
      b[j] = load_quads(w[j] + s * 64);
      if (Fetch) __builtin_prefetch(ahead[j] + s * 64);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
      for (int r = 0; r < 2; r++) {
        const QuadRow in = all_quads(reinterpret_cast<const QuadInput*>(q + m * run.q_stride + r * run.row));
#pragma GCC unroll 8
        for (int j = 0; j < NB; j++) sum[m][r][j] = dot_quads(sum[m][r][j], b[j], in);
      }
  }
#pragma GCC unroll 8
  for (int j = 0; j < NB; j++) {
    const Lanes scales = load(reinterpret_cast<const float*>(w[j] + run.lines * 64));
    if (Fetch) __builtin_prefetch(ahead[j] + run.lines * 64);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
      store(run.scores + m * kSplit + j * kLanes,
            fma(to_lanes(sum[m][0][j]), all(128.0f), to_lanes(sum[m][1][j])) * scales);
  }
}

struct CodeRun {
  const char* const* tiles;
  const char* const* after;
  ptrdiff_t offset;
  const char* weights;  // of the first query: a coarse row, a fine row
  int32_t* mixed;       // of the first query: coarse sums, fine sums
  ptrdiff_t dim;        // from coarse sums to fine ones, and on to the next query's
  int first_tile, last_tile;
};

template <int M, int D, bool Fetch>
__attribute__((noinline)) void mix_codes(const CodeRun& run) {
  Ints sum[2 * M][D];
#pragma GCC unroll 16
  for (int m = 0; m < 2 * M; m++)
#pragma GCC unroll 8
    for (int d = 0; d < D; d++) sum[m][d] = load_ints(run.mixed + m * run.dim + d * kLanes);
  for (int tile = run.first_tile; tile < run.last_tile; tile++) {
    const uint8_t* v = reinterpret_cast<const uint8_t*>(run.tiles[tile]) + run.offset;
    const char* ahead = Fetch ? run.after[tile] + run.offset : nullptr;
    const char* weights = run.weights + tile * kTileQuads * kQuadBytes;
    for (int s = 0; s < kTileQuads; s++, v += 64, weights += kQuadBytes) {
      Quads b[D];
#pragma GCC unroll 8
      for (int d = 0; d < D; d++) {
        b[d] = load_quads(v + d * kTileQuads * 64);
        if (Fetch) __builtin_prefetch(ahead + (d * kTileQuads + s) * 64);
      }
#pragma GCC unroll 16
      for (int m = 0; m < 2 * M; m++) {
        const QuadRow in = all_quads(reinterpret_cast<const QuadInput*>(weights + m * kWeightRow));
#pragma GCC unroll 8
        for (int d = 0; d < D; d++) sum[m][d] = dot_quads(sum[m][d], b[d], in);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < 2 * M; m++)
#pragma GCC unroll 8
    for (int d = 0; d < D; d++) store(run.mixed + m * run.dim + d * kLanes, sum[m][d]);
}

struct CodeCache {
  static constexpr int kRows = kMaxRows / 2 > 0 ? kMaxRows / 2 : 1;
  static constexpr int kPanel = kPanelRows / 2 > 0 ? kPanelRows / 2 : 1;
  template <int M>
  static constexpr int kBlocks = max_blocks(2 * M < kMaxRows ? 2 * M : kMaxRows);

  const KeysValues& kv;
  const Reading& reading;
  const Seen& seen;
  float* scores;   // (queries, kSplit)
  float* mixed;    // (queries, dim)
  ptrdiff_t dim;
  char* weights;   // (queries, 2, kSplit) codes, as quads
  int32_t* sums;   // (queries, 2, dim)
  float* scales;   // (queries,) of the weights

  template <int M, int NB>
  void score(const Queries& queries, int q, int tile, const char* const* after) const {
    for (int j = 0; j < NB; j++)  // the softmax will want the scales of the values first
      __builtin_prefetch(reading.values[tile + j] + dim / kLanes * kTileQuads * 64);
    const CodeScores run = {reading.keys + tile,
                            after ? after + tile : nullptr,
                            queries.q + q * queries.q_stride,
                            queries.q_stride,
                            quads_bytes(kv.head_dim),
                            key_lines(Number::int8, kv.head_dim),
                            scores + q * kSplit + tile * kLanes};
    after ? score_codes<M, NB, true>(run) : score_codes<M, NB, false>(run);
  }

  Softened find(const Queries& queries, int q) const {
    QueryCodes head;
    __builtin_memcpy(&head, queries.q + q * queries.q_stride, sizeof head);
    return find_high(kv, scores + q * kSplit, head.scale * kv.scale, seen.from[q], seen.to[q]);
  }

  // Weights of tiles first_tile .. last_tile - 1, zero beyond what the query sees; gives their sum.
  void weigh(const Softened& soft, int q, int first_tile, int last_tile, float* mass) const {
    float* row = soft.scores;
    char* coarse = weights + 2 * q * kWeightRow;
    const int first = soft.first(), last = soft.last();
    const ptrdiff_t lines = dim / kLanes * kTileQuads;
    Lanes sum = zero(), top = zero(), doubt = zero();
    for (int tile = first; tile <= last; tile++) {
      const Lanes x = soft.weights(tile);
      sum = sum + x;
      const Lanes scales = load(reinterpret_cast<const float*>(reading.values[tile] + lines * 64));
      const Lanes y = only_seen(x * scales, tile, soft.from, soft.to, zero());
      store(row + tile * kLanes, y);
      top = maximum(top, y);
      doubt = fma(y, zero(), doubt);
    }
    *mass = tree_sum(sum);
    const Grid grid = grid_of(tree_max(top), tree_sum(doubt), kFineSteps);
    scales[q] = grid.scale;
    Lanes totals[2] = {zero(), zero()};
    for (int tile = first_tile; tile < last_tile; tile++) {
      const Lanes y = tile < first || tile > last ? zero() : load(row + tile * kLanes);
      char* out = coarse + tile * kTileQuads * kQuadBytes;
      fine_codes(y, grid.inverse, out, out + kWeightRow, totals);
    }
    for (int r = 0; r < 2; r++) {
      const Ints start = all_ints(start_of(totals[r]));
      for (ptrdiff_t d = 0; d < dim; d += kLanes) store(sums + (2 * q + r) * dim + d, start);
    }
  }

  // Tiles first .. last - 1 for M queries from q on.
  template <int M, int Groups>
  void mix_rows(int q, int first, int last, const char* const* after) const {
    in_runs<Groups>(0, static_cast<int>(dim / kLanes), [&](int group, auto count) {
      constexpr int D = decltype(count)::value;
      (after ? mix_codes<M, D, true> : mix_codes<M, D, false>)({reading.values, after, group * kTileQuads * 64,
                                            weights + 2 * q * kWeightRow, sums + 2 * q * dim + group * kLanes, dim,
                                            first, last});
    });
  }

  void mix(int begin, int end, int first_tile, int last_tile, bool in_order) const {
    const int panel = in_order ? kRows : kPanel, run = in_order ? kStretch : last_tile - first_tile;
    for (int tile = first_tile; tile < last_tile; tile += run)
      for (int q = begin; q < end; q += panel)
        with_count<kRows>(end - q < panel ? end - q : panel, [&](auto rows) {
          constexpr int M = decltype(rows)::value, kFew = kBlocks<M> < 2 ? kBlocks<M> : 2;
          const int stop = tile + run < last_tile ? tile + run : last_tile;
          if (in_order)  // two groups at a time: then the tiles of a stretch are so many streams
            mix_rows<M, kFew>(q, tile, stop, q == begin ? reading.after_values : nullptr);
          else
            mix_rows<M, kBlocks<M>>(q, tile, stop, nullptr);
        });
    for (int q = begin; q < end; q++) {
      const int32_t* coarse = sums + 2 * q * dim;
      for (ptrdiff_t d = 0; d < dim; d += kLanes) {
        const Lanes sum = fma(to_lanes(load_ints(coarse + d)), all(128.0f), to_lanes(load_ints(coarse + dim + d)));
        store(mixed + q * dim + d, sum * all(scales[q]));
      }
    }
  }
};
