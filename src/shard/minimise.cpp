// Bucket elimination in min-fill order: takes the variable whose neighbours need the fewest new
// edges, minimises it out for every state of its neighbours, and walks back at the end.
#include "shard/minimise.h"

#include <algorithm>
#include <deque>

#include "base/check.h"

namespace shardwright::shard {
namespace {

// A function of some variables: costs at the sum of strides_k times the value of variable k.
struct Function {
  std::vector<int> variables;
  std::vector<size_t> strides;
  const Cost* costs = nullptr;
};

class Elimination {
 public:
  explicit Elimination(const Problem& problem)
      : problem_(problem),
        neighbours_(problem.variables.size()),
        functions_of_(problem.variables.size()),
        fill_(problem.variables.size(), -1),
        left_(problem.variables.size(), true) {
    for (const Problem::Table& table : problem.tables) {
      CHECK(table.a != table.b && table.costs->size() == size(table.a) * size(table.b));
      add({{table.a, table.b}, {size(table.b), 1}, table.costs->data()});
    }
  }

  std::vector<int> run() {
    for (int v = static_cast<int>(left_.size()); v-- > 0;) changed_.push_back(v);
    for (size_t step = 0; step < problem_.variables.size(); ++step) eliminate(next());
    std::vector<int> choice(problem_.variables.size(), 0);
    for (auto it = eliminated_.rbegin(); it != eliminated_.rend(); ++it) {
      size_t index = 0;
      for (const int neighbour : it->neighbours)
        index = index * size(neighbour) + static_cast<size_t>(choice[as(neighbour)]);
      choice[as(it->variable)] = it->best[index];
    }
    return choice;
  }

 private:
  struct Eliminated {
    int variable;
    std::vector<int> neighbours;
    std::vector<int> best;  // by the neighbours' values, the last fastest
  };

  static size_t as(int variable) { return static_cast<size_t>(variable); }
  size_t size(int variable) const { return problem_.variables[as(variable)].costs.size(); }

  void add(Function function) {
    const int id = static_cast<int>(functions_.size());
    for (const int a : function.variables) {
      functions_of_[as(a)].push_back(id);
      for (const int b : function.variables)
        if (a != b) insert(&neighbours_[as(a)], b);
    }
    functions_.push_back(std::move(function));
  }

  static void insert(std::vector<int>* sorted, int value) {
    const auto it = std::lower_bound(sorted->begin(), sorted->end(), value);
    if (it == sorted->end() || *it != value) sorted->insert(it, value);
  }
  static void remove(std::vector<int>* sorted, int value) {
    const auto it = std::lower_bound(sorted->begin(), sorted->end(), value);
    if (it != sorted->end() && *it == value) sorted->erase(it);
  }

  // Edges that eliminating `v` would add between its neighbours.
  int count_fill(int v) const {
    const std::vector<int>& near = neighbours_[as(v)];
    int missing = 0;
    for (size_t i = 0; i < near.size(); ++i)
      for (size_t j = i + 1; j < near.size(); ++j)
        missing += std::binary_search(neighbours_[as(near[i])].begin(),
                                      neighbours_[as(near[i])].end(), near[j])
                       ? 0
                       : 1;
    return missing;
  }

  double table_size(int v) const {
    auto entries = static_cast<double>(size(v));
    for (const int neighbour : neighbours_[as(v)]) entries *= static_cast<double>(size(neighbour));
    return entries;
  }

  // A variable with at most two neighbours can't be beaten: taking it widens nothing. Such are
  // found on a stack of those whose neighbours changed; only a core without them is searched by
  // fill.
  int next() {
    while (!changed_.empty()) {
      const int v = changed_.back();
      changed_.pop_back();
      if (left_[as(v)] && neighbours_[as(v)].size() <= 2) return v;
    }
    int best = -1;
    for (int v = 0; v < static_cast<int>(left_.size()); ++v) {
      if (!left_[as(v)]) continue;
      if (fill_[as(v)] < 0) fill_[as(v)] = count_fill(v);
      if (best < 0 || fill_[as(v)] < fill_[as(best)] ||
          (fill_[as(v)] == fill_[as(best)] && table_size(v) < table_size(best)))
        best = v;
    }
    return best;
  }

  // Adds `function` to `sums`, a table over `order` (the last fastest).
  void accumulate(const Function& function, const std::vector<int>& order,
                  std::vector<Cost>* sums) const {
    std::vector<size_t> strides(order.size(), 0), sizes(order.size()), index(order.size(), 0);
    for (size_t k = 0; k < order.size(); ++k) {
      sizes[k] = size(order[k]);
      for (size_t i = 0; i < function.variables.size(); ++i)
        if (function.variables[i] == order[k]) strides[k] = function.strides[i];
    }
    const size_t last = order.size() - 1, inner = sizes[last], stride = strides[last];
    const Cost* from = function.costs;
    for (size_t at = 0; at < sums->size(); at += inner) {
      for (size_t j = 0; j < inner; ++j) (*sums)[at + j] += from[j * stride];
      for (size_t k = last; k-- > 0;) {
        from += strides[k];
        if (++index[k] < sizes[k]) break;
        from -= strides[k] * sizes[k];
        index[k] = 0;
      }
    }
  }

  void eliminate(int v) {
    Eliminated done{v, neighbours_[as(v)], {}};
    std::vector<int> order = done.neighbours;
    order.push_back(v);
    size_t rows = 1;
    for (const int neighbour : done.neighbours) rows *= size(neighbour);
    const std::vector<Cost>& own = problem_.variables[as(v)].costs;
    std::vector<Cost> sums;
    sums.reserve(rows * own.size());
    for (size_t r = 0; r < rows; ++r) sums.insert(sums.end(), own.begin(), own.end());
    for (const int id : functions_of_[as(v)]) {
      accumulate(functions_[as(id)], order, &sums);
      for (const int other : functions_[as(id)].variables)
        if (other != v) std::erase(functions_of_[as(other)], id);
    }

    std::vector<Cost>& least = storage_.emplace_back(rows);
    done.best.resize(rows);
    for (size_t r = 0; r < rows; ++r) {
      const auto begin = sums.begin() + static_cast<std::ptrdiff_t>(r * own.size());
      const auto best = std::min_element(begin, begin + static_cast<std::ptrdiff_t>(own.size()));
      least[r] = *best;
      done.best[r] = static_cast<int>(best - begin);
    }
    forget(v);
    if (!done.neighbours.empty()) {
      Function function{done.neighbours, std::vector<size_t>(done.neighbours.size(), 1),
                        least.data()};
      for (size_t k = done.neighbours.size() - 1; k-- > 0;)
        function.strides[k] = function.strides[k + 1] * size(done.neighbours[k + 1]);
      add(std::move(function));
    }
    eliminated_.push_back(std::move(done));
  }

  // Fill counts change for the neighbours, and for those that see two of them.
  void forget(int v) {
    left_[as(v)] = false;
    for (const int neighbour : neighbours_[as(v)]) {
      remove(&neighbours_[as(neighbour)], v);
      fill_[as(neighbour)] = -1;
      for (const int further : neighbours_[as(neighbour)]) fill_[as(further)] = -1;
      changed_.push_back(neighbour);
    }
  }

  const Problem& problem_;
  std::vector<std::vector<int>> neighbours_;  // sorted
  std::vector<std::vector<int>> functions_of_;
  std::vector<int> fill_;  // -1: to be counted
  std::vector<bool> left_;
  std::vector<int> changed_;  // whose neighbours changed since they were last looked at
  std::deque<Function> functions_;
  std::deque<std::vector<Cost>> storage_;
  std::vector<Eliminated> eliminated_;
};

template <typename T>
std::string json_list(const std::vector<T>& values) {
  std::string text = "[";
  for (const T& value : values) text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + "]";
}

}  // namespace

Cost Problem::cost(const std::vector<int>& choice) const {
  Cost total = 0;
  const auto at = [&](int v) { return static_cast<size_t>(choice[static_cast<size_t>(v)]); };
  for (size_t v = 0; v < variables.size(); ++v)
    total += variables[v].costs[at(static_cast<int>(v))];
  for (const Table& table : tables) {
    const size_t columns = variables[static_cast<size_t>(table.b)].costs.size();
    total += (*table.costs)[at(table.a) * columns + at(table.b)];
  }
  return total;
}

std::vector<int> minimise(const Problem& problem) { return Elimination(problem).run(); }

std::string to_json(const Problem& problem, const std::vector<int>& choice) {
  std::string text = "{\"variables\": [";
  const char* separator = "";
  for (const Problem::Variable& variable : problem.variables) {
    text += separator + ("{\"name\": \"" + variable.name) +
            "\", \"costs\": " + json_list(variable.costs) + "}";
    separator = ",\n";
  }
  text += "],\n\"tables\": [";
  separator = "";
  for (const Problem::Table& table : problem.tables) {
    text += separator + ("{\"a\": " + std::to_string(table.a)) +
            ", \"b\": " + std::to_string(table.b) + ", \"costs\": " + json_list(*table.costs) + "}";
    separator = ",\n";
  }
  return text + "],\n\"optimum\": " + std::to_string(problem.cost(choice)) +
         ", \"choice\": " + json_list(choice) + "}\n";
}

}  // namespace shardwright::shard
