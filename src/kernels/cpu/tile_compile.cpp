// The steps of a tile program: conversions between float and double registers made explicit,
// roundings left out where they change nothing, registers mapped to slots.
#include <algorithm>
#include <array>
#include <map>
#include <string>

#include "base/check.h"
#include "base/error.h"
#include "kernels/cpu/tile_plan.h"

namespace shardwright::kernels {
namespace {

constexpr bool is_comparison(TileCode code) {
  return code >= TileCode::kEq && code <= TileCode::kGe;
}
constexpr bool is_reduction(TileCode code) { return code >= TileCode::kReduceSum; }
constexpr bool takes_truth(TileCode code) {
  return code == TileCode::kAnd || code == TileCode::kOr || code == TileCode::kNot;
}
// The result is one of the operands, or its negative: nothing to round if they are rounded.
constexpr bool selects(TileCode code) {
  return code == TileCode::kCopy || code == TileCode::kNeg || code == TileCode::kAbs ||
         code == TileCode::kRelu || code == TileCode::kMin || code == TileCode::kMax ||
         code == TileCode::kWhere;
}

// What a register of the program, or a converted copy of one, holds.
struct Value {
  bool wide = false;
  DType dtype = DType::kF32;
  int unrounded = -1;  // the value that this is the rounding of
};

class StepBuilder {
 public:
  StepBuilder(const TileProgram& program, TilePlan& plan) : program_(program), plan_(plan) {}

  void build() {
    for (const TileOp& op : program_.ops) {
      CHECK(!plan_.reduces || op.code == TileCode::kStore, "nothing but a store after a reduction");
      add(op);
    }
    for (const Step& store : stores_) steps_.push_back(store);
    drop_unused();
    assign_slots();
  }

 private:
  int new_value(bool wide, DType dtype) {
    values_.push_back({.wide = wide, .dtype = dtype});
    return static_cast<int>(values_.size()) - 1;
  }
  int emit(Step step, bool wide, DType dtype) {
    step.dst = new_value(wide, dtype);
    steps_.push_back(step);
    return step.dst;
  }
  const Value& value(int id) const { return values_[static_cast<size_t>(id)]; }

  int value_of(int reg) const {
    const auto found = registers_.find(reg);
    CHECK(found != registers_.end(), "a tile operation reads a register before it is written");
    return found->second;
  }
  int as_wide(int id) { return value(id).wide ? id : converted(id, StepKind::kToWide); }
  int as_float(int id) { return value(id).wide ? converted(id, StepKind::kToFloat) : id; }
  int as_truth(int id) { return value(id).wide ? converted(id, StepKind::kToTruth) : id; }
  int converted(int id, StepKind kind) {
    const auto [entry, is_new] = conversions_.try_emplace({id, kind}, -1);
    if (is_new) {
      const bool wide = kind == StepKind::kToWide;
      const DType dtype = kind == StepKind::kToTruth ? DType::kBool
                          : wide                     ? value(id).dtype
                                                     : DType::kF32;
      entry->second = emit({.kind = kind, .a = id}, wide, dtype);
    }
    return entry->second;
  }
  TileFunction function(TileCode code) const {
    return plan_.table->function[static_cast<int>(code)];
  }

  // `id` rounded to what `dtype` can hold.
  int rounded(int id, DType dtype) {
    if (value(id).wide) {
      if (dtype == DType::kF64 || value(id).dtype == dtype) return id;
      return emit({.kind = StepKind::kRoundWide, .dtype = dtype, .a = id}, true, dtype);
    }
    const TileFunction round = plan_.table->round[static_cast<int>(dtype)];
    if (round == nullptr || value(id).dtype == dtype) return id;
    const int result = emit({.function = round, .a = id}, false, dtype);
    values_[static_cast<size_t>(result)].unrounded = id;
    return result;
  }

  void add(const TileOp& op) {
    switch (op.code) {
      case TileCode::kLoad: {
        const DType dtype = program_.inputs.at(static_cast<size_t>(op.a)).dtype;
        const StepKind kind = is_wide(dtype) ? StepKind::kLoadWide : StepKind::kLoad;
        set(op.dst, emit({.kind = kind, .dtype = dtype, .operand = op.a}, is_wide(dtype), dtype));
        return;
      }
      case TileCode::kStore:
        return add_store(op);
      case TileCode::kConstant: {
        const StepKind kind = is_wide(op.dtype) ? StepKind::kWideConstant : StepKind::kConstant;
        constants_[op.dst] = op.imm;
        set(op.dst,
            emit({.kind = kind, .imm = round_wide(op.imm, op.dtype)}, is_wide(op.dtype), op.dtype));
        return;
      }
      case TileCode::kPow:
        return add_power(op);
      default:
        return is_reduction(op.code) ? add_reduction(op) : add_operation(op);
    }
  }
  void set(int reg, int id) {
    CHECK(registers_.try_emplace(reg, id).second, "a tile register is written twice");
  }

  void add_store(const TileOp& op) {
    const DType dtype = program_.outputs.at(static_cast<size_t>(op.dst)).dtype;
    const int operand = plan_.n_inputs + op.dst;
    if (plan_.reduces) {
      CHECK(op.a == reduced_register_, "only the reduced value can be stored");
      plan_.reduce_operand = operand;
      return;
    }
    int id = value_of(op.a);
    const bool wide = is_wide(dtype);
    id = wide ? as_wide(id) : dtype == DType::kBool ? as_truth(id) : as_float(id);
    if (!wide && value(id).dtype == dtype && value(id).unrounded >= 0) id = value(id).unrounded;
    stores_.push_back({.kind = wide ? StepKind::kStoreWide : StepKind::kStore,
                       .dtype = dtype,
                       .a = id,
                       .operand = operand});
  }

  // Powers with the usual constant exponents, as PyTorch computes them.
  void add_power(const TileOp& op) {
    const auto exponent = constants_.find(op.b);
    TileOp simple = op;
    simple.b = -1;
    const double power = exponent == constants_.end() ? 7.0 : exponent->second;
    if (power == 1.0)
      simple.code = TileCode::kCopy;
    else if (power == 2.0)
      simple.code = TileCode::kSquare;
    else if (power == 0.5)
      simple.code = TileCode::kSqrt;
    else if (power == -0.5)
      simple.code = TileCode::kRsqrt;
    else if (power == -1.0)
      simple.code = TileCode::kReciprocal;
    else if (power == 3.0 && !is_wide(op.dtype))
      return add_cube(op);
    else
      simple = op;
    add_operation(simple);
  }
  void add_cube(const TileOp& op) {
    const int x = as_float(value_of(op.a));
    const TileFunction mul = function(TileCode::kMul);
    const int square = emit({.function = mul, .a = x, .b = x}, false, DType::kF32);
    const int cube = emit({.function = mul, .a = square, .b = x}, false, DType::kF32);
    set(op.dst, rounded(cube, op.dtype));
  }

  void add_operation(const TileOp& op) {
    const bool wide = is_wide(op.dtype);
    std::array<int, 3> operands = {-1, -1, -1};
    const std::array<int, 3> regs = {op.a, op.b, op.c};
    bool any_wide = false;
    bool keeps_type = true;
    for (size_t i = 0; i < 3; ++i) {
      if (regs[i] < 0) continue;
      operands[i] = value_of(regs[i]);
      any_wide = any_wide || value(operands[i]).wide;
      const bool is_condition = op.code == TileCode::kWhere && i == 0;
      keeps_type = keeps_type && (is_condition || value(operands[i]).dtype == op.dtype);
    }
    const bool compares_wide = is_comparison(op.code) && any_wide;
    const bool wants_truth =
        takes_truth(op.code) || (op.code == TileCode::kCopy && op.dtype == DType::kBool);
    for (size_t i = 0; i < 3; ++i) {
      if (operands[i] < 0) continue;
      if (wants_truth || (op.code == TileCode::kWhere && i == 0))
        operands[i] = as_truth(operands[i]);
      else
        operands[i] = wide || compares_wide ? as_wide(operands[i]) : as_float(operands[i]);
    }
    if (op.code == TileCode::kCopy) {  // a cast: nothing but the rounding
      const int id = wide && wants_truth ? as_wide(operands[0]) : operands[0];
      return set(op.dst, rounded(id, op.dtype));
    }
    Step step{
        .code = op.code, .dtype = op.dtype, .a = operands[0], .b = operands[1], .c = operands[2]};
    const bool gives_truth = is_comparison(op.code) || takes_truth(op.code);
    step.kind = compares_wide          ? StepKind::kCompare
                : wide && !gives_truth ? StepKind::kWide
                                       : StepKind::kFloat;
    if (step.kind == StepKind::kFloat) step.function = function(op.code);
    const bool is_rounded = gives_truth || (keeps_type && selects(op.code));
    const bool result_wide = step.kind == StepKind::kWide;
    const DType exact = gives_truth ? DType::kBool : result_wide ? DType::kF64 : DType::kF32;
    const int result = emit(step, result_wide, is_rounded && !gives_truth ? op.dtype : exact);
    set(op.dst, wide && gives_truth ? as_wide(result) : rounded(result, op.dtype));
  }

  void add_reduction(const TileOp& op) {
    const int id = value_of(op.a);
    plan_.reduces = true;
    plan_.reduce = op.code;
    plan_.reduce_wide = value(id).wide;
    plan_.reduce_slot = id;  // a value for now; assign_slots makes it a slot
    plan_.reduce_dtype = op.dtype;
    plan_.reduce_divisor = op.imm;
    reduced_register_ = op.dst;
  }

  void drop_unused() {
    std::vector<bool> used(values_.size(), false);
    const auto mark = [&](int id) {
      if (id >= 0) used[static_cast<size_t>(id)] = true;
    };
    mark(plan_.reduce_slot);
    std::vector<Step> kept;
    for (size_t i = steps_.size(); i-- > 0;) {
      const Step& step = steps_[i];
      if (step.dst >= 0 && !used[static_cast<size_t>(step.dst)]) continue;
      mark(step.a);
      mark(step.b);
      mark(step.c);
      kept.push_back(step);
    }
    steps_.assign(kept.rbegin(), kept.rend());
  }

  // Slots are reused after the last read. Constants keep theirs.
  void assign_slots() {
    std::vector<size_t> last_read(values_.size(), 0);
    std::vector<bool> stored(values_.size(), false);
    for (size_t i = 0; i < steps_.size(); ++i)
      for (const int id : {steps_[i].a, steps_[i].b, steps_[i].c})
        if (id >= 0) last_read[static_cast<size_t>(id)] = i;
    if (plan_.reduce_slot >= 0) last_read[static_cast<size_t>(plan_.reduce_slot)] = steps_.size();
    for (const Step& store : stores_) stored[static_cast<size_t>(store.a)] = true;
    std::vector<int> slot(values_.size(), -1);
    std::array<std::vector<int>, 2> free_slots;
    std::array<int, 2> n_slots = {0, 0};
    for (size_t i = 0; i < steps_.size(); ++i) {
      Step step = steps_[i];
      const std::array<int, 3> reads = {step.a, step.b, step.c};
      const auto slot_of = [&](int id) { return id < 0 ? -1 : slot[static_cast<size_t>(id)]; };
      step.a = slot_of(step.a);
      step.b = slot_of(step.b);
      step.c = slot_of(step.c);
      for (size_t k = 0; k < 3; ++k) {
        const int id = reads[k];
        if (id < 0 || last_read[static_cast<size_t>(id)] != i || is_constant(id)) continue;
        if ((k > 0 && reads[0] == id) || (k > 1 && reads[1] == id)) continue;
        free_slots[value(id).wide].push_back(slot[static_cast<size_t>(id)]);
      }
      if (step.dst >= 0) {
        const int id = step.dst;
        // A stored copy of an input is not in place: an earlier store might overwrite it.
        step.in_place = step.dtype == DType::kF32 && !stored[static_cast<size_t>(id)];
        const size_t pool = value(id).wide;
        if (!free_slots[pool].empty() && !is_constant(id)) {
          step.dst = free_slots[pool].back();
          free_slots[pool].pop_back();
        } else {
          step.dst = n_slots[pool]++;
        }
        slot[static_cast<size_t>(id)] = step.dst;
      }
      const bool is_prologue =
          step.kind == StepKind::kConstant || step.kind == StepKind::kWideConstant;
      (is_prologue ? plan_.constants : plan_.steps).push_back(step);
    }
    if (plan_.reduce_slot >= 0) plan_.reduce_slot = slot[static_cast<size_t>(plan_.reduce_slot)];
    if (n_slots[0] > kMaxTileSlots || n_slots[1] > kMaxTileSlots)
      throw Error(ErrorCode::kUnsupported,
                  "a fused chain needs " + std::to_string(std::max(n_slots[0], n_slots[1])) +
                      " registers at once; at most " + std::to_string(kMaxTileSlots) +
                      " are there: fuse fewer operators");
  }
  bool is_constant(int id) const {
    for (const Step& step : steps_)
      if (step.dst == id)
        return step.kind == StepKind::kConstant || step.kind == StepKind::kWideConstant;
    return false;
  }

  const TileProgram& program_;
  TilePlan& plan_;
  std::vector<Value> values_;
  std::vector<Step> steps_;  // dst, a, b, c are values here
  std::vector<Step> stores_;
  std::map<int, int> registers_;  // register of the program -> value
  std::map<int, double> constants_;
  std::map<std::pair<int, StepKind>, int> conversions_;
  int reduced_register_ = -1;
};

}  // namespace

void compile_steps(const TileProgram& program, TilePlan& plan) {
  StepBuilder(program, plan).build();
}

}  // namespace shardwright::kernels
