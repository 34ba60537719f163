// Symbolic sizes of a .pt2 program: the value of each symbol, and expressions over symbols.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "frontend/json.h"
#include "frontend/pt2.h"

namespace shardwright::frontend {

// The symbols of one program. A PEF has fixed sizes, so each symbol gets one value: by --dim, or
// the hint, which is the size of the example that the program was exported with.
class Symbols {
 public:
  // A size of an input that the file leaves open; `dim` of a number that is an input: its name.
  struct Open {
    std::string dim;         // "input_ids.1"
    std::string expression;  // expression.h
    int64_t hint = 0;        // 0: the file has none
  };

  explicit Symbols(std::string file) : file_(std::move(file)) {}
  // Throws Error(kUsage) where a choice is outside of the file's range constraint, two choices
  // contradict each other, or a guard of the file doesn't hold for them; choices for what this
  // program has not are ignored.
  Symbols(const Field& program, const std::vector<DimChoice>& choices, std::string file);

  // Of a SymInt or an Argument: as_int, as_expr, as_name, as_sym_int. Throws Error(kUnsupported)
  // if it depends on data.
  int64_t integer(const Field& field) const;
  // Of a SymBool: as_bool, as_expr, as_name.
  bool boolean(const Field& field) const;

  const std::vector<Open>& open() const { return open_; }
  // "input_ids.1 (2 to 512, default 48)" for each.
  std::string open_text() const;

 private:
  struct Range {
    int64_t min = 0, max = 0;
  };
  // size = scale * symbol + offset
  struct Affine {
    std::string symbol;
    int64_t scale = 0, offset = 0;
    Range range;  // of the size
    std::string text() const;
    std::string allowed() const;
  };
  void find_open(const Field& graph, const Field& signature);
  void choose(const Open& open, const DimChoice& choice);
  void check_guards(const Field& program) const;
  Affine affine_of(const Open& open) const;
  Range range_of(const std::string& symbol) const;
  int64_t value_of(const std::string& symbol) const;
  int64_t number(const Field& field, const char* table) const;

  std::string file_;
  const Json* graph_ = nullptr;  // sym_int_values, sym_bool_values
  std::string graph_path_;
  std::map<std::string, Range> ranges_;
  std::map<std::string, int64_t> values_;
  std::map<std::string, std::string> chosen_by_;  // symbol -> "--dim x.0=8"
  std::vector<Open> open_;
};

}  // namespace shardwright::frontend
