// Scores and weighted values for a cache of float32 or bfloat16: both are products with packed tiles.
//
//     keys of a tile     16 outputs (tokens), head_dim inputs     score  = q . K^T, a chain over head_dim
//     values of a tile   16 outputs (entries) a line group, 16 inputs (tokens)     output += p . V, a chain over tokens
//
// A step of the second chain is one token (float32), or two at an even position (bfloat16). The chain of a query runs
// over exactly the steps it sees, ascending. Of a pair of which it sees one token, the other is masked to +0, whatever
// the memory holds there:
//
//     positions    | 0 1 | 2 3 | 4 5 | 6 7 |      a window that begins at 3, a query at 6
//     steps              | + 3 | 4 5 | 6 + |      edge, shared .., edge

template <class T>
constexpr int kTokens = T::kWeights / kLanes;  // of a step
template <class T>
constexpr int kTileSteps = kLanes / kTokens<T>;
template <class T>
constexpr ptrdiff_t kLineBytes = T::kWeights * sizeof(typename T::Weight);

template <class T, int M, int NB, bool Fetch>
__attribute__((noinline)) void score_tiles(const char* const* tiles, const char* const* after, const char* q,
                                           ptrdiff_t q_stride, int64_t steps, float* scores) {
  Lanes sum[M][NB];
  const char *w[NB], *ahead[NB];
#pragma GCC unroll 8
  for (int j = 0; j < NB; j++) {
    w[j] = tiles[j];
    if (Fetch) ahead[j] = after[j];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) sum[m][j] = zero();
  }
  for (int64_t s = 0; s < steps; s++, q += kStepBytes<T>) {
    typename T::W b[NB];
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) {
      b[j] = T::weights(reinterpret_cast<const typename T::Weight*>(w[j] + s * kLineBytes<T>));
      if (Fetch) __builtin_prefetch(ahead[j] + s * kLineBytes<T>);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      const typename T::W in = T::inputs(reinterpret_cast<const typename T::Input*>(q + m * q_stride));
#pragma GCC unroll 8
      for (int j = 0; j < NB; j++) sum[m][j] = T::step(sum[m][j], in, b[j]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) store(scores + m * kSplit + j * kLanes, sum[m][j]);
}

// Steps first .. last - 1 of the split, for D line groups of the value tiles.
struct ValueRun {
  const char* const* tiles;
  const char* const* after;
  ptrdiff_t offset;     // bytes to the first line group within a tile
  const char* weights;  // of the first query, at the split's start
  float* mixed;         // of the first query, at the first line group
  ptrdiff_t dim;        // floats from one query's to the next one's
  int first, last;
};

template <class T, int M, int D, bool Fetch>
__attribute__((noinline)) void mix_tiles(const ValueRun& run) {
  constexpr ptrdiff_t kGroup = kTileSteps<T> * kLineBytes<T>, kRow = kSplit * sizeof(float);
  Lanes sum[M][D];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int d = 0; d < D; d++) sum[m][d] = load(run.mixed + m * run.dim + d * kLanes);
  for (int s = run.first; s < run.last;) {
    const int tile = s / kTileSteps<T>, end = (tile + 1) * kTileSteps<T>, stop = end < run.last ? end : run.last;
    const char* v = run.tiles[tile] + run.offset + s % kTileSteps<T> * kLineBytes<T>;
    const ptrdiff_t ahead = Fetch ? run.after[tile] - run.tiles[tile] : 0;
    for (; s < stop; s++, v += kLineBytes<T>) {
      typename T::W b[D];
#pragma GCC unroll 8
      for (int d = 0; d < D; d++) {
        b[d] = T::weights(reinterpret_cast<const typename T::Weight*>(v + d * kGroup));
        if (Fetch) __builtin_prefetch(v + d * kGroup + ahead);
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; m++) {
        const typename T::W weight =
            T::inputs(reinterpret_cast<const typename T::Input*>(run.weights + m * kRow + s * kStepBytes<T>));
#pragma GCC unroll 8
        for (int d = 0; d < D; d++) sum[m][d] = T::step(sum[m][d], weight, b[d]);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int d = 0; d < D; d++) store(run.mixed + m * run.dim + d * kLanes, sum[m][d]);
}

template <class T>
struct FloatCache {
  static constexpr int kRows = kMaxRows;  // queries of the largest register tile
  static constexpr int kPanel = kPanelRows;
  template <int M>
  static constexpr int kBlocks = max_blocks(M);

  const KeysValues& kv;
  const Reading& reading;
  const Seen& seen;
  float* scores;  // (queries, kSplit), and then the weights of the values, in place
  float* mixed;   // (queries, dim)
  ptrdiff_t dim;

  template <int M, int NB>
  void score(const Queries& queries, int q, int tile, const char* const* after) const {
    const auto run = after ? score_tiles<T, M, NB, true> : score_tiles<T, M, NB, false>;
    run(reading.keys + tile, after ? after + tile : nullptr, queries.q + q * queries.q_stride, queries.q_stride,
        steps_of<T>(kv.head_dim), scores + q * kSplit + tile * kLanes);
  }

  Softened find(const Queries&, int q) const {
    return find_high(kv, scores + q * kSplit, kv.scale, seen.from[q], seen.to[q]);
  }

  // Scores of a query -> its weights, as the chain over tokens reads them; gives their sum.
  void weigh(const Softened& soft, int, int, int, float* mass) const {
    float* row = soft.scores;
    Lanes sum = zero();
    for (int tile = soft.first(); tile <= soft.last(); tile++) {
      Lanes x = soft.weights(tile);
      if constexpr (kTokens<T> == 1) {
        store(row + tile * kLanes, x);
      } else if constexpr (kPairWords == 1) {
        uint16_t* out = reinterpret_cast<uint16_t*>(row) + tile * kLanes;  // behind what is still to be read
        narrow(out, x);
        x = widen(out);
      } else {
        uint16_t bits[kLanes];
        narrow(bits, x);
        x = widen(bits);
        store(row + tile * kLanes, x);
      }
      sum = sum + x;
    }
    *mass = tree_sum(sum);
  }

  // Steps first .. last - 1 for M queries from q on.
  template <int M>
  void mix_rows(int q, int first, int last, const char* const* after) const {
    if (first >= last) return;
    constexpr ptrdiff_t kGroup = kTileSteps<T> * kLineBytes<T>;
    const char* weights = reinterpret_cast<const char*>(scores + q * kSplit);
    in_runs<max_blocks(M)>(0, static_cast<int>(dim / kLanes), [&](int group, auto count) {
      constexpr int D = decltype(count)::value;
      (after ? mix_tiles<T, M, D, true> : mix_tiles<T, M, D, false>)(
          {reading.values, after, group * kGroup, weights, mixed + q * dim + group * kLanes, dim, first, last});
    });
  }

  // One step of which the query sees the first or the second token alone.
  void mix_edge(int q, int step, bool second) const {
    const int tile = step / kTileSteps<T>;
    const char* v = reading.values[tile] + step % kTileSteps<T> * kLineBytes<T>;
    const auto weight = T::inputs(reinterpret_cast<const typename T::Input*>(
        reinterpret_cast<const char*>(scores + q * kSplit) + step * kStepBytes<T>));
    float* out = mixed + q * dim;
    for (ptrdiff_t d = 0; d < dim; d += kLanes, v += kTileSteps<T> * kLineBytes<T>) {
      typename T::Weight masked[T::kWeights];
      __builtin_memcpy(masked, v, sizeof masked);
      for (int j = second ? 0 : 1; j < T::kWeights; j += 2) masked[j] = 0;
      store(out + d, T::step(load(out + d), weight, T::weights(masked)));
    }
  }

  // What only one of M queries sees, what all see together, what only one sees. Tile by tile where the values come
  // from memory, so that they are read as they lie; else line group by line group, sums in registers.
  template <int M>
  void mix_panel(int q, bool in_order) const {
    int first = 0, last = kSplit;
    for (int i = q; i < q + M; i++) {
      first = first_step(i) > first ? first_step(i) : first;
      last = last_step(i) < last ? last_step(i) : last;
    }
    const bool shared = first < last;
    for (int i = q; i < q + M; i++) {
      if (seen.from[i] % kTokens<T>) mix_edge(i, first_step(i) - 1, true);
      mix_rows<1>(i, first_step(i), shared ? first : last_step(i), nullptr);
    }
    if (shared && !in_order) mix_rows<M>(q, first, last, nullptr);
    if (shared && in_order)
      for (int s = first; s < last;) {
        const int stop = (s / (kStretch * kTileSteps<T>) + 1) * kStretch * kTileSteps<T>;
        mix_rows<M>(q, s, stop < last ? stop : last, reading.after_values);
        s = stop;
      }
    for (int i = q; i < q + M; i++) {
      if (shared) mix_rows<1>(i, last, last_step(i), nullptr);
      if (seen.to[i] % kTokens<T>) mix_edge(i, last_step(i), false);
    }
  }
  // The steps that query i sees whole: first_step .. last_step - 1.
  int first_step(int i) const { return (seen.from[i] + kTokens<T> - 1) / kTokens<T>; }
  int last_step(int i) const { return seen.to[i] / kTokens<T>; }

  void mix(int begin, int end, int, int, bool in_order) const {
    for (ptrdiff_t i = begin * dim; i < end * dim; i += kLanes) store(mixed + i, zero());
    const int panel = in_order ? kRows : kPanel;
    for (int q = begin; q < end; q += panel)
      with_count<kRows>(end - q < panel ? end - q : panel,
                        [&](auto rows) { mix_panel<decltype(rows)::value>(q, in_order); });
  }
};
